"""The chart's webhook: what it renders, and what a real API server makes of it."""

import base64
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import assets
from cluster.definitions import await_established
from controlplane import ports
from controlplane.plane import ControlPlane
from controlplane.process import OperatorProcess
from yolofleet.settings import read_settings
from yolofleet.webhook import PATH

ON = {"webhook": {"enabled": True}}
HOST = "fleet-yolofleet-webhook.platform.svc"

Kubectl = Callable[..., subprocess.CompletedProcess[str]]


def configuration(chart: Any, **values: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    whole = chart.one("ValidatingWebhookConfiguration", **(ON | values))
    [hook] = whole["webhooks"]
    return whole, hook


def test_nothing_of_it_is_made_unless_asked_for(chart):
    assert "webhook" not in chart.text().lower().replace("hook-", "")


def test_the_path_is_the_one_that_the_operator_answers(chart):
    _, hook = configuration(chart)
    assert hook["clientConfig"]["service"]["path"] == PATH


def test_the_service_leads_to_the_port_that_the_operator_opens(chart):
    service = chart.one("Service", "fleet-yolofleet-webhook", **ON)
    deployment = chart.one("Deployment", **ON)
    template = deployment["spec"]["template"]
    [container] = template["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    settings = read_settings({entry["name"]: entry["value"] for entry in container["env"]})
    assert ports[service["spec"]["ports"][0]["targetPort"]] == settings.webhook_port
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    [mount] = container["volumeMounts"]
    assert Path(mount["mountPath"]) == settings.webhook_certificates
    [volume] = template["spec"]["volumes"]
    assert volume["secret"]["secretName"] == "fleet-yolofleet-webhook"


def test_a_pod_that_leaves_answers_until_nobody_is_led_there_any_more(chart):
    pods = [chart.one("Deployment", **on)["spec"]["template"]["spec"] for on in ({}, ON)]
    without, leaving = (pod["containers"][0].get("lifecycle") for pod in pods)
    assert without is None
    assert leaving == {"preStop": {"sleep": {"seconds": 5}}}
    less, grace = (pod["terminationGracePeriodSeconds"] for pod in pods)
    assert grace == less + 5, "the sleep takes nothing from the end"


def test_it_fails_closed_and_asks_for_nothing_but_specs(chart):
    _, hook = configuration(chart)
    assert hook["failurePolicy"] == "Fail"
    assert hook["timeoutSeconds"] == 5
    assert hook["rules"] == [
        {
            "apiGroups": ["yolofleet.io"],
            "apiVersions": ["v1alpha1"],
            "operations": ["CREATE", "UPDATE"],
            "resources": ["yolodetectors"],
            "scope": "Namespaced",
        }
    ]
    assert "namespaceSelector" not in hook


def test_only_the_namespaces_that_are_looked_after_are_asked_for(chart):
    _, hook = configuration(chart, watchNamespaces=["cameras", "labs"])
    [expression] = hook["namespaceSelector"]["matchExpressions"]
    assert expression["values"] == ["cameras", "labs"]
    own = {"matchLabels": {"vision": "on"}}
    _, hook = configuration(chart, webhook={"enabled": True, "namespaceSelector": own})
    assert hook["namespaceSelector"] == own


def test_the_charts_certificate_is_for_the_service_and_trusted(chart, tmp_path):
    manifests = chart.render(**ON)
    [secret] = [m for m in manifests if m["kind"] == "Secret"]
    [whole] = [m for m in manifests if m["kind"] == "ValidatingWebhookConfiguration"]
    trusted = whole["webhooks"][0]["clientConfig"]["caBundle"]
    (tmp_path / "ca.crt").write_bytes(base64.b64decode(trusted))
    (tmp_path / "tls.crt").write_bytes(base64.b64decode(secret["data"]["tls.crt"]))
    verify = ["openssl", "verify", "-CAfile", tmp_path / "ca.crt", "-verify_hostname", HOST]
    subprocess.run([*verify, tmp_path / "tls.crt"], check=True, capture_output=True)


def test_cert_manager_makes_the_certificate_where_asked_to(chart):
    values = {"webhook": {"enabled": True, "certManager": {"enabled": True}}}
    certificate = chart.one("Certificate", "fleet-yolofleet-webhook", **values)
    issuer = chart.one("Issuer", "fleet-yolofleet-webhook", **values)
    whole, hook = configuration(chart, **values)
    assert HOST in certificate["spec"]["dnsNames"]
    assert certificate["spec"]["issuerRef"]["name"] == issuer["metadata"]["name"]
    authority = chart.one("Certificate", "fleet-yolofleet-webhook-ca", **values)["spec"]
    assert issuer["spec"] == {"ca": {"secretName": authority["secretName"]}}
    assert authority["isCA"], "it outlives what it signs"
    assert authority["secretName"] != certificate["spec"]["secretName"]
    injected = whole["metadata"]["annotations"]["cert-manager.io/inject-ca-from"]
    assert injected == "platform/" + certificate["metadata"]["name"]
    assert "caBundle" not in hook["clientConfig"]
    [volume] = chart.one("Deployment", **values)["spec"]["template"]["spec"]["volumes"]
    assert volume["secret"]["secretName"] == certificate["spec"]["secretName"]
    [own] = [m["metadata"]["name"] for m in chart.render(**ON) if m["kind"] == "Secret"]
    assert own != certificate["spec"]["secretName"], "it would be taken for the chart's later on"
    assert "Secret" not in {m["kind"] for m in chart.render(**values)}
    given = {"kind": "ClusterIssuer", "name": "internal"}
    values["webhook"]["certManager"]["issuerRef"] = given
    assert (
        chart.one("Certificate", "fleet-yolofleet-webhook", **values)["spec"]["issuerRef"] == given
    )
    assert "Issuer" not in {m["kind"] for m in chart.render(**values)}


# on a real API server


class Admitting:
    """A standby behind the chart's configuration; without Services it is called by URL."""

    def __init__(self, plane: ControlPlane, folder: Path, chart: Any) -> None:
        self._folder, self._chart = folder, chart
        self.kubeconfig = plane.kubeconfig()
        (self._port,) = ports.reserve(1)
        self.certify()
        self.operator = OperatorProcess(
            self.kubeconfig,
            folder / "operator.log",
            {
                "YOLOFLEET_LEASE_NAMESPACE": "platform",
                "YOLOFLEET_WEBHOOK_PORT": str(self._port),
                "YOLOFLEET_WEBHOOK_CERTIFICATES": str(folder),
            },
        )

    def certify(self) -> None:
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
                *("-subj", "/CN=webhook", "-addext", "subjectAltName=IP:127.0.0.1"),
                *("-keyout", self._folder / "tls.key", "-out", self._folder / "tls.crt"),
            ],
            check=True,
            capture_output=True,
        )

    def kubectl(self, *arguments: str, stdin: Any = "") -> subprocess.CompletedProcess[str]:
        program = [str(assets.directory() / "kubectl"), "--kubeconfig", str(self.kubeconfig)]
        text = stdin if isinstance(stdin, str) else json.dumps(stdin)
        return subprocess.run(
            [*program, *arguments],
            input=text,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    def apply(self, stdin: Any) -> subprocess.CompletedProcess[str]:
        return self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=stdin)

    def configure(self, path: str = "") -> None:
        whole, hook = configuration(self._chart)
        service = hook["clientConfig"].pop("service")
        url = f"https://127.0.0.1:{self._port}{path or service['path']}"
        trusted = base64.b64encode((self._folder / "tls.crt").read_bytes()).decode()
        hook["clientConfig"] = {"url": url, "caBundle": trusted}
        hook["timeoutSeconds"] = 30  # this machine may be busy
        done = self.apply(whole)
        assert done.returncode == 0, done.stderr

    def try_out(self, told: str, timeout_s: float = 180.0, **spec: Any) -> str:
        """Try to make a detector until the answer has `told`: configurations take a moment."""
        deadline = time.monotonic() + timeout_s
        while True:
            done = self.kubectl("create", "--dry-run=server", "-f", "-", stdin=a_detector(**spec))
            answer = done.stdout + done.stderr
            if told in answer:
                return answer
            assert time.monotonic() < deadline, answer
            time.sleep(0.3)


def a_detector(name: str = "gate", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "yolofleet.io/v1alpha1",
        "kind": "YoloDetector",
        "metadata": {"name": name, "namespace": "cameras"},
        "spec": {"model": {"uri": "demo://shapes"}, **spec},
    }


WRONG = {"podTemplate": {"spec": {"containers": [{"name": "yoloserve", "image": "mine:1"}]}}}


@pytest.fixture(scope="module")
def admitting(
    chart: Any,
    plane: ControlPlane,
    module_cleared: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Admitting]:
    folder = tmp_path_factory.mktemp("webhook")
    one = Admitting(plane, folder, chart)
    for name in ("platform", "cameras"):
        one.kubectl("create", "namespace", name)
    crd = [m for m in chart.render() if m["kind"] == "CustomResourceDefinition"]
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "yolofleet", "namespace": "platform"},
        "spec": {"holderIdentity": "the-leader", "leaseDurationSeconds": 3600},
    }
    done = one.apply(yaml.safe_dump_all([*crd, lease]))
    assert done.returncode == 0, done.stderr
    await_established(
        lambda: one.kubectl("get", "crd/yolodetectors.yolofleet.io", "-o", "json").stdout
    )
    one.operator.start()
    try:
        deadline = time.monotonic() + 180
        while one.operator.probe("readyz") != 200:
            assert time.monotonic() < deadline, one.operator.text()
            time.sleep(0.2)
        yield one
    finally:
        one.operator.kill()


@pytest.mark.controlplane
def test_a_standby_refuses_what_cannot_be_honoured_and_allows_the_rest(admitting):
    admitting.configure()
    assert not admitting.operator.leads()
    told = admitting.try_out("denied the request", **WRONG)
    assert "containers[yoloserve].image: use spec.runtime.image" in told
    told = admitting.try_out("created", model={"uri": "https://models.example.com/a.onnx"})
    assert "Warning: spec.model.sha256: is not set" in told


@pytest.mark.controlplane
def test_a_host_that_another_detector_routes_is_refused(admitting):
    admitting.configure()
    traffic = {"hosts": ["gate.example.com"], "gateways": ["istio-system/public"]}
    first = admitting.kubectl("create", "-f", "-", stdin=a_detector("door", traffic=traffic))
    assert first.returncode == 0, first.stderr
    told = admitting.try_out("denied the request", traffic=traffic)
    assert "is taken by the detector cameras/door already" in told
    again = admitting.apply(a_detector("door", traffic=traffic, replicas=2))
    assert again.returncode == 0, again.stderr


@pytest.mark.controlplane
def test_a_wrong_path_refuses_everything(admitting):
    admitting.configure(path="/valid")
    assert "/valid is no path of this webhook" in admitting.try_out("denied the request")
    admitting.configure()
    admitting.try_out("created")


@pytest.mark.controlplane
def test_a_renewed_certificate_is_picked_up_without_a_restart(admitting):
    admitting.configure()
    admitting.try_out("created")
    admitting.certify()
    admitting.configure()
    deadline = time.monotonic() + 180  # it looks each ten seconds
    while admitting.operator.metric("certwatcher_read_certificate_total") < 2:
        assert time.monotonic() < deadline
        time.sleep(0.3)
    admitting.try_out("created")


@pytest.mark.controlplane
def test_the_certificate_of_the_chart_stays_at_an_upgrade_until_it_is_deleted(
    admitting, chart, tmp_path
):
    """A release of its own, whose webhook is asked about no namespace."""
    nothing = {"matchLabels": {"kubernetes.io/metadata.name": "nobody"}}
    values = {
        "webhook": {"enabled": True, "namespaceSelector": nothing},
        "crds": {"enabled": False},
    }

    def upgraded() -> dict[str, str]:
        chart.install("kept", "labs", admitting.kubeconfig, **values)
        done = admitting.kubectl("-n", "labs", "get", "secret/kept-yolofleet-webhook", "-o", "json")
        secret: dict[str, str] = json.loads(done.stdout)["data"]
        done = admitting.kubectl(
            "get", "validatingwebhookconfigurations/kept-yolofleet", "-o", "json"
        )
        [hook] = json.loads(done.stdout)["webhooks"]
        assert hook["clientConfig"]["caBundle"] == secret["ca.crt"]
        return secret

    first = upgraded()
    assert upgraded() == first
    admitting.kubectl("-n", "labs", "delete", "secret/kept-yolofleet-webhook")
    second = upgraded()
    assert second["tls.crt"] != first["tls.crt"]
    assert upgraded() == second
    for pair in (second, first):  # the one that pods show for a minute yet is still trusted
        for name, text in (("ca.crt", second["ca.crt"]), ("tls.crt", pair["tls.crt"])):
            (tmp_path / name).write_bytes(base64.b64decode(text))
        verify = ["openssl", "verify", "-CAfile", tmp_path / "ca.crt", tmp_path / "tls.crt"]
        subprocess.run(verify, check=True, capture_output=True)

    emptied = "patch validatingwebhookconfigurations/kept-yolofleet --type=merge -p"
    done = admitting.kubectl(*emptied.split(), '{"webhooks": null}')
    assert done.returncode == 0, done.stderr
    admitting.kubectl("-n", "labs", "delete", "secret/kept-yolofleet-webhook")
    assert upgraded()["tls.crt"] != second["tls.crt"]


@pytest.mark.controlplane
def test_without_an_answer_nothing_is_made_and_what_is_there_can_go(admitting):
    """The last test of this file: it ends the operator."""
    admitting.configure()
    made = admitting.kubectl("create", "-f", "-", stdin=a_detector("leaving"))
    assert made.returncode == 0, made.stderr
    admitting.operator.kill()
    assert "failed calling webhook" in admitting.try_out("failed calling webhook")
    for step in (
        "annotate yd/leaving note=read",
        "delete yd/leaving --cascade=foreground --wait=false",
        'patch yd/leaving --type=merge -p {"metadata":{"finalizers":null}}',  # as its collector
        "get yd/leaving --ignore-not-found",
    ):
        done = admitting.kubectl("-n", "cameras", *step.split())
        assert done.returncode == 0, done.stderr
    assert done.stdout == ""
