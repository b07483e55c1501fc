"""What a podTemplate takes beyond its detector is found where it stands, and can be forbidden."""

import json
from pathlib import Path
from typing import Any

import pytest

from yolofleet.api.base import InvalidSpec
from yolofleet.plan.powers import Power, check, uses, warnings

CHART = Path(__file__).parents[2] / "charts" / "yolofleet"
SIDECAR = {"name": "side", "image": "side:1"}


OF_A_STORAGE = ("cephfs", "cinder", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos")


def of_server(**fields: Any) -> dict[str, Any]:
    return {"containers": [{"name": "yoloserve", **fields}]}


def volume(**source: Any) -> dict[str, Any]:
    return {"volumes": [{"name": "v", **source}]}


TAKEN = [
    ({"hostNetwork": True}, Power.HOST_NAMESPACES, "hostNetwork"),
    ({"hostPID": True}, Power.HOST_NAMESPACES, "hostPID"),
    ({"hostIPC": True}, Power.HOST_NAMESPACES, "hostIPC"),
    (volume(hostPath={"path": "/"}), Power.HOST_PATH, "volumes[v].hostPath"),
    (
        {"containers": [SIDECAR | {"ports": [{"containerPort": 9, "hostPort": 9}]}]},
        Power.HOST_PORTS,
        "containers[side].ports[9].hostPort",
    ),
    (
        of_server(securityContext={"privileged": True}),
        Power.PRIVILEGED,
        "containers[yoloserve].securityContext.privileged",
    ),
    (
        of_server(securityContext={"capabilities": {"add": ["SYS_ADMIN"]}}),
        Power.PRIVILEGED,
        "containers[yoloserve].securityContext.capabilities",
    ),
    (
        {"initContainers": [SIDECAR | {"securityContext": {"allowPrivilegeEscalation": True}}]},
        Power.PRIVILEGED,
        "initContainers[side].securityContext.allowPrivilegeEscalation",
    ),
    ({"securityContext": {"runAsUser": 0}}, Power.PRIVILEGED, "securityContext.runAsUser"),
    (
        {"securityContext": {"runAsNonRoot": False}},
        Power.PRIVILEGED,
        "securityContext.runAsNonRoot",
    ),
    (
        {"securityContext": {"seccompProfile": {"type": "Unconfined"}}},
        Power.PRIVILEGED,
        "securityContext.seccompProfile",
    ),
    ({"serviceAccountName": "admin"}, Power.SERVICE_ACCOUNT, "serviceAccountName"),
    (
        {"automountServiceAccountToken": True},
        Power.SERVICE_ACCOUNT,
        "automountServiceAccountToken",
    ),
    (
        volume(projected={"sources": [{"serviceAccountToken": {"path": "t"}}]}),
        Power.SERVICE_ACCOUNT,
        "volumes[v].projected.sources[0].serviceAccountToken",
    ),
    (volume(secret={"secretName": "s"}), Power.SECRETS, "volumes[v].secret"),
    (
        volume(projected={"sources": [{"secret": {"name": "s"}}]}),
        Power.SECRETS,
        "volumes[v].projected.sources[0].secret",
    ),
    (
        of_server(env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]),
        Power.SECRETS,
        "containers[yoloserve].env[A].valueFrom.secretKeyRef",
    ),
    (
        of_server(envFrom=[{"secretRef": {"name": "s"}}]),
        Power.SECRETS,
        "containers[yoloserve].envFrom[0].secretRef",
    ),
    *(
        (volume(**{kind: {field: name}}), Power.SECRETS, f"volumes[v].{kind}.{field}")
        for kind, field, name in (
            ("azureFile", "secretName", "s"),
            ("csi", "nodePublishSecretRef", {"name": "s"}),
            *((kind, "secretRef", {"name": "s"}) for kind in OF_A_STORAGE),
        )
    ),
    (
        volume(projected={"sources": [{"podCertificate": {"signerName": "a.b/c"}}]}),
        Power.SERVICE_ACCOUNT,
        "volumes[v].projected.sources[0].podCertificate",
    ),
    ({"priorityClassName": "system-node-critical"}, Power.PRIORITY, "priorityClassName"),
    ({"priority": 2_000_000}, Power.PRIORITY, "priority"),
    ({"nodeName": "control-plane"}, Power.NODE_NAME, "nodeName"),
    ({"runtimeClassName": "runc"}, Power.RUNTIME_CLASS, "runtimeClassName"),
    ({"containers": [SIDECAR]}, Power.CONTAINERS, "containers[side]"),
    ({"initContainers": [SIDECAR]}, Power.CONTAINERS, "initContainers[side]"),
]


@pytest.mark.parametrize(("pod", "power", "field"), TAKEN)
def test_a_power_is_found_and_refused_by_the_field_that_takes_it(
    detector_with, pod: dict[str, Any], power: Power, field: str
):
    spec = detector_with(podTemplate={"spec": pod}).spec
    assert (power, f"spec.podTemplate.spec.{field}") in [(u.power, u.field) for u in uses(spec)]
    with pytest.raises(InvalidSpec) as refused:
        check(spec, {power})
    assert str(refused.value).startswith(f"spec.podTemplate.spec.{field}: ")
    check(spec, set(Power) - {use.power for use in uses(spec)})


ISTIO = "sidecar.istio.io"
NETWORKS = "k8s.v1.cni.cncf.io/networks"
ANNOTATED = [
    ("container.apparmor.security.beta.kubernetes.io/yoloserve", "unconfined", "privileged"),
    (f"{ISTIO}/interceptionMode", "TPROXY", "privileged"),
    (f"{ISTIO}/capNetBindService", "true", "privileged"),
    (f"{ISTIO}/proxyImage", "evil/x", "containers"),
    (f"{ISTIO}/bootstrapOverride", "mine", "containers"),
    ("proxy.istio.io/overrides", "{}", "containers"),
    ("inject.istio.io/templates", "gateway", "containers"),
    (f"{ISTIO}/userVolume", '[{"name":"r","hostPath":{"path":"/"}}]', "hostPath"),
    (f"{ISTIO}/userVolume", '{"r":{"HOSTPATH":{"path":"/"}}}', "hostPath"),
    (f"{ISTIO}/userVolume", '{"r":{"secret":{"secretName":"s"}}}', "secrets"),
    (f"{ISTIO}/userVolume", '{"r":{"azurefile":{"SecretName":"s"}}}', "secrets"),
    (
        f"{ISTIO}/userVolume",
        '{"r":{"projected":{"sources":[{"serviceaccounttoken":{}}]}}}',
        "serviceAccount",
    ),
    (f"{ISTIO}/userVolume", '{"r":{"ho\u017ftPath":{"path":"/"}}}', "hostPath"),
    (f"{ISTIO}/userVolume", '{"r":{"\u017fecret":{"secretName":"s"}}}', "secrets"),
    (
        f"{ISTIO}/userVolume",
        '{"r":{"csi":{"nodePublishSecretRef":{"name":"s"}},"csi":{}}}',
        "secrets",
    ),
    (f"{ISTIO}/userVolume", json.dumps({'a"\n  - hostPath: {path: /}': {}}), "hostPath"),
    (f"{ISTIO}/userVolumeMount", json.dumps({'a"\n- name: "own': {}}), "containers"),
    ("apm.datadoghq.com/env", json.dumps({"A\n  - name: own": "x"}), "containers"),
    ("apm.datadoghq.com/env", json.dumps({"A": 'x"\n  - name: own'}), "containers"),
    ("proxy.istio.io/config", 'proxyMetadata: {A: "x\\n- name: own"}', "containers"),
    ("proxy.istio.io/config", "proxyMetadata:\n  A: 'x\"'", "containers"),
    ("proxy.istio.io/config", 'proxyMetadata:\n  A: a"b"', "containers"),
    ("proxy.istio.io/config", "proxyMetadata:\n  A: |\n    x", "containers"),
    *(
        (f"{ISTIO}/logLevel", f"warning\n  - name: own{more}", power)
        for more, power in (
            ("", "containers"),
            ("\n    securityContext: {privileged: true}", "privileged"),
            ("\n  volumes: [{hostPath: {path: /}}]", "hostPath"),
            ("\n  volumes: [{secret: {secretName: s}}]", "secrets"),
            ("\n  serviceAccountName: admin", "serviceAccount"),
        )
    ),
    *(
        (f"{ISTIO}/{name}", '1"\n  privileged: "', "privileged")
        for name in (
            *("componentLogLevel", "agentLogLevel", "proxyCPU", "proxyMemory"),
            *("proxyCPULimit", "proxyMemoryLimit", "a-newer-one"),
        )
    ),
    ("traffic.sidecar.istio.io/excludeInterfaces", 'eth0"', "privileged"),
    *(
        (NETWORKS, "x'}\nspec: {containers: [{name: own}]}\n---\n# '", power)
        for power in ("containers", "privileged", "hostPath", "secrets", "serviceAccount")
    ),
    *(
        (f"resource.opentelemetry.io/service.{name}", f"1{end}\n  - name: own", "containers")
        for name in ("namespace", "version", "instance.id")
        for end in '"\\'
    ),
    ("sidecar.maistra.io/proxyEnv", json.dumps({"A": 'x"\n  - name: own'}), "containers"),
    ("sidecar.maistra.io/proxyEnv", '{"LD_PRELOAD":"/mine/x.so"}', "containers"),
    ("apm.datadoghq.com/env", '{"ISTIO_BOOTSTRAP_OVERRIDE":"/mine/b.json"}', "containers"),
    *(
        ("proxy.istio.io/config", config, "privileged")
        for config in (
            "interceptionMode: TPROXY",
            '{"interception_mode": 1}',
            "concurrency: 2\ninterceptionMode:\n  # why\n  'TPROXY'\n",
            '{"interception\\u004dode": "TPROXY"}',
            "{interceptionMode:TPROXY}",
            "interceptionMode: NONE\ninterception_mode: TPROXY",
            'proxyMetadata: {IPTABLES_TRACE_LOGGING: "true"}',
        )
    ),
    *(
        ("proxy.istio.io/config", config, "containers")
        for config in (
            "customConfigFile: /mine/envoy.json",
            "custom_config_file: /mine/envoy.json",
            "binaryPath: /mine/sh",
            '{"binary_path": "/mine/sh"}',
            "proxyBootstrapTemplatePath: /mine/b.json",
            "proxyMetadata:\n  ISTIO_BOOTSTRAP_OVERRIDE: /mine/b.json",
            "proxyMetadata:\n  ISTIO_BOOTSTRAP: /mine/b.json",
            "proxyMetadata:\n  LD_PRELOAD: /mine/x.so",
        )
    ),
    ("istio.io/anything", "a\u2028b", "privileged"),
    (f"{ISTIO}/userVolume", "[what is this", "hostPath"),
    (f"{ISTIO}/userVolume", "[" * 60 + "]" * 60, "secrets"),
]


@pytest.mark.parametrize(("name", "value", "power"), ANNOTATED)
def test_a_power_is_found_in_what_others_read_of_annotations(
    detector_with, name: str, value: str, power: str
):
    template = {"metadata": {"annotations": {name: value}}}
    for path, given in (
        ("spec.podTemplate", {"podTemplate": template}),
        ("spec.canary.podTemplate", {"canary": {"podTemplate": template, "weight": 1}}),
    ):
        spec = detector_with(**given).spec
        with pytest.raises(InvalidSpec) as refused:
            check(spec, {Power(power)})
        assert str(refused.value).startswith(f"{path}.metadata.annotations[{name}]")
        check(spec, set(Power) - {use.power for use in uses(spec)})


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"runtime": {"engine": "ray", "image": "evil/own:1"}}, "spec.runtime.engine"),
        (
            {"canary": {"runtime": {"engine": "ray"}, "weight": 1, "replicas": 1}},
            "spec.canary.runtime.engine",
        ),
    ],
)
def test_the_engine_whose_head_has_an_account_of_its_own_can_be_forbidden(
    detector_with, spec: dict[str, Any], field: str
):
    asked = detector_with(**spec).spec
    with pytest.raises(InvalidSpec) as refused:
        check(asked, {Power.RAY})
    assert str(refused.value).startswith(f"{field}: this cluster's admin forbids ray")
    check(asked, set(Power) - {Power.RAY})
    assert not list(warnings(asked))


@pytest.mark.parametrize("path", ["spec", "spec.canary"])
@pytest.mark.parametrize("end", ['"', "\\"])
def test_the_name_of_an_image_may_be_more_than_a_name(detector_with, path: str, end: str):
    runtime = {"image": f"own:1{end}\n  - name: own"}
    given = {"canary": {"runtime": runtime, "weight": 1}}
    asked = detector_with(**(given if path == "spec.canary" else {"runtime": runtime})).spec
    for power in (Power.CONTAINERS, Power.PRIVILEGED, Power.SECRETS):
        with pytest.raises(InvalidSpec) as refused:
            check(asked, {power})
        assert str(refused.value).startswith(f"{path}.runtime.image: ")


def test_everyday_names_of_images_take_none(detector_with):
    image = f"registry.example.com:5000/a_b/c-d:v1.2@sha256:{'0' * 64}"
    assert list(uses(detector_with(runtime={"image": image}).spec)) == []


def taken_by_config(detector_with, config: str) -> set[Power]:
    template = {"metadata": {"annotations": {"proxy.istio.io/config": config}}}
    return {use.power for use in uses(detector_with(podTemplate=template).spec)}


@pytest.mark.parametrize(
    "config",
    [
        'proxyStatsMatcher:\n  inclusionRegexps:\n  - ".*(outlier_detection|upstream_rq).*"\n',
        "proxyStatsMatcher:\n  inclusionRegexps:\n  - '.*\\.upstream_cx.*$'\n",
        "# don't start before the proxy; für alle!\nholdApplicationUntilProxyStarts: true\n",
        "holdApplicationUntilProxyStarts: true\r\nconcurrency: 2\r\n",
        'readinessProbe:\n  httpGet:\n    path: "/x?y=1&z=2"  # (why)\n',
        'proxyStatsMatcher:\n  inclusionRegexps: [".*upstream_rq_[45]xx.*", "a{1,2}"]\n',
        "caCertificatesPem:\n- |\n  -----BEGIN CERTIFICATE-----\n  MII+/=\n",
        "interceptionMode: NONE\nconcurrency: 1\n",
        'interception_mode: "REDIRECT"  # no TPROXY\n',
        'proxyMetadata: {IPTABLES_TRACE_LOGGING: "false", A: "b"}\n',
        '{\n  "terminationDrainDuration": "30s",\n  "concurrency": 2\n}\n',
        "# of proxyMetadata nothing\nextraStatTags: ['a\\b']\n",
        "---\nholdApplicationUntilProxyStarts: true\n",
        "",
    ],
)
def test_an_everyday_config_of_a_proxy_takes_none(detector_with, config: str):
    assert not taken_by_config(detector_with, config)


@pytest.mark.parametrize(
    "config",
    [
        "proxyMetadata:\n  A: 'x\\\"'\n",
        "proxy_metadata:\n  A: 'x\\n'\n",
        'proxyMetadata:\n  A: "x #\\n"\n',
        'proxyMetadata:\n  A: "x\n  # y"\n',
        "proxyMetadata:\n  A: |\n    # x\n",
        "# a line ends here too\u2028proxyMetadata: {A: 'x\\n'}\n",
        "# and here\rproxyMetadata: {A: 'x\\n'}\n",
        '{x "y, "a #b": c, "proxyMetadata": {"A": "e\\"\\n- name: own"}}',
        '{x - "y, " #b": c, interceptionMode: TPROXY}',
        '{x\n"y,!!str " #b": c, "proxyMetadata": {"A": "e\\n"}}',
        'proxyMetadata:\n  A: x "y"\n',
        'proxyMetadata:\n  "A\\n- name": x\n',
        "proxyMetadata:\n  A: >\n    x\n",
        "proxyMetadata:\n  A: [x, '[']\n",
        "image:\n  imageType: 'x\\'\n",
        'tracing: {tlsSettings: {ca_certificates: "/a\\nb/"}}\n',
        'extraStatTags: ["a\\u0085b", "\\u2028"]\n',
        "extraStatTags: [\u00fc]\n",
        "a: &b c\nd: *b\n",
        "a: !!binary cHJveHlNZXRhZGF0YQ==\n",
        "%YAML 1.1\n---\na: b\n",
        "a: b: c\n",
        "a: 'b\n",
        "\ufeffa: b\n",
        "[" * 60 + "]" * 60,
        "[\n" * 30_000,
        "a: " + "b" * 70_000,
        "a: b\n" * 2_000,
    ],
)
def test_a_config_that_may_be_more_takes_all(detector_with, config: str):
    assert taken_by_config(detector_with, config) >= {Power.PRIVILEGED, Power.SECRETS}


def test_everyday_annotations_take_none(detector_with):
    annotations = {
        "container.apparmor.security.beta.kubernetes.io/yoloserve": "runtime/default",
        f"{ISTIO}/inject": "true",
        f"{ISTIO}/interceptionMode": "REDIRECT",
        f"{ISTIO}/proxyCPU": "100m",
        f"{ISTIO}/userVolume": '[{"name":"a","configMap":{"name":"a"}},{"name":"b","emptyDir":{}}]',
        f"{ISTIO}/userVolumeMount": '[{"name":"a","mountPath":"/a"}]',
        f"{ISTIO}/componentLogLevel": "misc:error,rbac:debug",
        f"{ISTIO}/statsInclusionRegexps": r".*\(circuit\)",
        "traffic.sidecar.istio.io/excludeOutboundIPRanges": "10.0.0.0/8, 169.254.169.254/32",
        "traffic.sidecar.istio.io/includeInboundPorts": "*",
        "proxy.istio.io/config": 'proxyMetadata:\n  A: \'true\'  # so\n  "B": "x=y"\n'
        'tracing: {zipkin: {"address":"zipkin.trace:9411"}}\ntags: [a, b]\n',
        "apm.datadoghq.com/env": '{"DD_ENV":"prod"}',
        "sidecar.maistra.io/proxyEnv": '{ "TERMINATION_DRAIN_DURATION_SECONDS": "20" }',
        NETWORKS: '[\n  {"name": "fast", "cni-args": {"a": "\\u00fc"}},\n  {"name": "b"}\n]\n',
        "resource.opentelemetry.io/service.version": "1.2 (f\u00fcr alle), #3",
        "resource.opentelemetry.io/anything": 'a"b',
        "team": 'unconfined\n"',
    }
    spec = detector_with(podTemplate={"metadata": {"annotations": annotations}}).spec
    assert list(uses(spec)) == []


def test_the_chart_knows_each_of_them():
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    forbid = schema["properties"]["podTemplate"]["properties"]["forbid"]
    assert set(forbid["items"]["enum"]) == set(Power)


def test_a_canary_takes_powers_too(detector_with):
    template = {"spec": {"hostNetwork": True}}
    spec = detector_with(canary={"podTemplate": template, "weight": 1}).spec
    with pytest.raises(InvalidSpec) as refused:
        check(spec, {Power.HOST_NAMESPACES})
    assert str(refused.value).startswith("spec.canary.podTemplate.spec.hostNetwork: ")


@pytest.mark.parametrize(
    "pod",
    [
        {"nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}]},
        of_server(env=[{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"fieldRef": {}}}]),
        of_server(securityContext={"runAsUser": 1000, "capabilities": {"drop": ["ALL"]}}),
        {"securityContext": {"runAsNonRoot": True, "fsGroup": 1000}},
        volume(configMap={"name": "c"}),
        volume(emptyDir={}),
        volume(persistentVolumeClaim={"claimName": "models"}),
        {"hostNetwork": False, "automountServiceAccountToken": False},
        {"volumes": "not a list", "containers": [None], "securityContext": "odd"},
    ],
)
def test_everyday_pods_take_none(pod: dict[str, Any]):
    from yolofleet.api.detector import DetectorSpec

    spec = DetectorSpec.model_validate(
        {"model": {"uri": "demo://shapes"}, "podTemplate": {"spec": pod}}
    )
    assert list(uses(spec)) == []


@pytest.mark.parametrize(
    "pod",
    [
        {"hostNetwork": True},
        {"priorityClassName": "high"},
        {"nodeName": "n"},
        {"runtimeClassName": "runc"},
    ],
)
def test_what_most_people_regret_is_warned_of(detector_with, pod: dict[str, Any]):
    regretted = detector_with(podTemplate={"spec": pod}).spec
    [told] = warnings(regretted)
    assert told.startswith(f"spec.podTemplate.spec.{next(iter(pod))}: ")


def test_what_is_everyday_work_is_not_warned_of(detector_with):
    assert (
        list(warnings(detector_with(podTemplate={"spec": {"serviceAccountName": "s3"}}).spec)) == []
    )


def test_many_powers_of_a_container_with_a_long_name_are_few_words(detector_with):
    ports = [{"containerPort": n, "hostPort": n} for n in range(1, 2_000)]
    env = [{"name": f"{n}", "valueFrom": {"secretKeyRef": {"name": "s"}}} for n in range(2_000)]
    side = SIDECAR | {"name": "a" * 20_000, "ports": ports, "env": env}
    spec = detector_with(podTemplate={"spec": {"containers": [side]}}).spec
    assert len("".join(warnings(spec))) < 1_000_000
    with pytest.raises(InvalidSpec) as refused:
        check(spec, set(Power))
    assert len(str(refused.value)) < 50_000
