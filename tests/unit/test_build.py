"""The objects that a detector has: their names, their order, and the facts that matter."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from yolofleet.api.names import RENDER_ANNOTATION
from yolofleet.manifests import render
from yolofleet.workloads.revision import Revision

TEMPLATES = Path(render.__file__).parent / "templates"


def objects(world):
    return world.think().desired


def one(world, kind):
    return next(m for m in objects(world) if m["kind"] == kind)


def kinds(world):
    return [manifest["kind"] for manifest in objects(world)]


def container(world):
    return one(world, "Deployment")["spec"]["template"]["spec"]["containers"][0]


def environment(world):
    return {entry["name"]: entry["value"] for entry in container(world)["env"]}


def test_a_detector_has_these_objects_in_this_order(world):
    world.settle()
    stable = world.status().stable.revision
    world.monitors = True
    assert [(m["kind"], m["metadata"]["name"]) for m in objects(world)] == [
        ("NetworkPolicy", "gate"),
        ("ServiceAccount", "gate"),
        ("Service", stable),
        ("DestinationRule", stable),
        ("Service", "gate"),
        ("VirtualService", "gate"),
        ("ControllerRevision", stable),
        ("Deployment", stable),
        ("PodDisruptionBudget", "gate"),
        ("PodMonitor", "gate"),
    ]


def test_every_child_is_owned_labelled_and_in_its_namespace(world):
    for manifest in objects(world):
        meta = manifest["metadata"]
        assert meta["namespace"] == "shop"
        assert meta["labels"]["app.kubernetes.io/managed-by"] == "yolofleet"
        [owner] = meta["ownerReferences"]
        assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == (
            world.detector().uid,
            True,
            True,
        )


def test_pods_carry_the_labels_they_are_selected_by(world):
    spec = one(world, "Deployment")["spec"]
    assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()


def test_pods_are_restricted(world):
    pod = one(world, "Deployment")["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    own = pod["containers"][0]["securityContext"]
    assert own["readOnlyRootFilesystem"] is True
    assert own["allowPrivilegeEscalation"] is False
    assert own["capabilities"] == {"drop": ["ALL"]}


def test_pods_live_longer_than_they_drain(world):
    pod = one(world, "Deployment")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > int(environment(world)["YOLOSERVE_DRAIN_SECONDS"])


def test_the_server_is_told_what_the_spec_says(world):
    world.edit(
        model={"uri": "pvc://models/gate/v7.onnx", "sha256": "a" * 64, "classes": ["on", "0755"]},
        inference={"profile": "throughput", "imageSize": 320, "deadline": "2s", "confidence": 0.4},
        runtime={"backend": "onnxruntime"},
    )
    told = environment(world)
    assert not [name for name in told if "ALLOW" in name], "pods that ask for nothing stay"
    assert told["YOLOSERVE_MODEL"] == "file:///mnt/model/gate/v7.onnx"
    assert told["YOLOSERVE_SHA256"] == "a" * 64
    assert told["YOLOSERVE_CLASSES"] == '["on", "0755"]'
    assert told["YOLOSERVE_PROFILE"] == "throughput"
    assert told["YOLOSERVE_IMAGE_SIZE"] == "320"
    assert told["YOLOSERVE_DEADLINE_MS"] == "2000"
    assert told["YOLOSERVE_CONFIDENCE"] == "0.4"
    assert told["YOLOSERVE_BACKEND"] == "onnxruntime"
    assert told["YOLOSERVE_REVISION"] == one(world, "Deployment")["metadata"]["name"]
    claim = {"claimName": "models", "readOnly": True}
    volumes = one(world, "Deployment")["spec"]["template"]["spec"]["volumes"]
    assert {"name": "model", "persistentVolumeClaim": claim} in volumes


JWT = {
    "issuer": "https://login.example.com/realms/shop",
    "jwksUri": "https://login.example.com:8443/realms/shop/certs",
    "audiences": ["gate", "yard"],
}


def test_the_server_is_told_whose_tokens_count_and_may_fetch_their_keys(world):
    world.mesh = False
    world.edit(access={"jwt": JWT})
    told = environment(world)
    assert told["YOLOSERVE_JWT_ISSUER"] == JWT["issuer"]
    assert told["YOLOSERVE_JWT_JWKS_URI"] == JWT["jwksUri"]
    assert json.loads(told["YOLOSERVE_JWT_AUDIENCES"]) == JWT["audiences"]
    assert 8443 in reached(world)


def test_keys_are_mounted_from_the_secret_for_the_server_to_read_and_nobody_to_write(world):
    world.edit(access={"apiKeys": {"secretName": "gate-keys", "key": "list"}})
    pod = one(world, "Deployment")["spec"]["template"]["spec"]
    [volume] = [each for each in pod["volumes"] if "secret" in each]
    [item] = volume["secret"]["items"]
    assert (volume["secret"]["secretName"], item["key"]) == ("gate-keys", "list")
    assert volume["secret"]["defaultMode"] == 0o440  # root's and the group's, which is fsGroup
    [mount] = [m for m in container(world)["volumeMounts"] if m["name"] == volume["name"]]
    assert mount["readOnly"] is True
    assert "subPath" not in mount  # or a changed Secret would not arrive
    file = environment(world)["YOLOSERVE_API_KEYS_FILE"]
    assert file == f"{mount['mountPath']}/{item['path']}"


def test_probes_and_scraping_need_no_credentials_unless_the_metrics_are_closed(world):
    world.monitors = True
    world.edit(access={"apiKeys": {"secretName": "gate-keys"}})
    template = one(world, "Deployment")["spec"]["template"]
    assert template["metadata"]["annotations"]["prometheus.io/scrape"] == "true"
    assert "PodMonitor" in kinds(world)
    assert "YOLOSERVE_METRICS_OPEN" not in environment(world)
    world.edit(access={"apiKeys": {"secretName": "gate-keys"}, "metricsOpen": False})
    template = one(world, "Deployment")["spec"]["template"]
    assert "prometheus.io/scrape" not in template["metadata"].get("annotations", {})
    assert "PodMonitor" not in kinds(world)
    assert environment(world)["YOLOSERVE_METRICS_OPEN"] == "false"


def test_where_everybody_may_ask_pods_are_what_they_were(world):
    told = environment(world)
    left_out = "JWT", "KEYS", "METRICS", "CORS"
    assert not [name for name in told if any(word in name for word in left_out)]
    pod = one(world, "Deployment")["spec"]["template"]["spec"]
    assert [volume["name"] for volume in pod["volumes"]] == ["cache", "yoloserve-live"]


def test_a_pod_template_is_merged_by_name_and_breaks_nothing(world):
    world.edit(
        podTemplate={
            "metadata": {"labels": {"team": "x"}, "annotations": {"note": "y"}},
            "spec": {
                "nodeSelector": {"disk": "ssd"},
                "tolerations": [{"key": "gpu", "operator": "Exists", "tolerationSeconds": 9}],
                "containers": [
                    {"name": "yoloserve", "env": [{"name": "TZ", "value": "UTC"}]},
                    {"name": "sidecar", "image": "side:1"},
                ],
                "volumes": [{"name": "cache", "emptyDir": {"sizeLimit": "1Gi"}}],
            },
        }
    )
    template = one(world, "Deployment")["spec"]["template"]
    assert template["metadata"]["labels"]["team"] == "x"
    assert template["metadata"]["labels"]["yolofleet.io/revision"].startswith("gate-")
    assert template["metadata"]["annotations"].keys() > {"note"}
    assert template["spec"]["nodeSelector"] == {"disk": "ssd"}
    assert template["spec"]["tolerations"][0]["tolerationSeconds"] == 9
    assert [c["name"] for c in template["spec"]["containers"]] == ["yoloserve", "sidecar"]
    assert environment(world)["TZ"] == "UTC"
    assert "YOLOSERVE_MODEL" in environment(world)
    assert template["spec"]["volumes"][0] == {"name": "cache", "emptyDir": {"sizeLimit": "1Gi"}}


SECRET = {"secretKeyRef": {"name": "a", "key": "b"}}


@pytest.mark.parametrize(
    ("spec", "path", "expected"),
    [
        (
            {"containers": [{"name": "yoloserve", "env": [{"name": "HOME", "valueFrom": SECRET}]}]},
            ("containers", 0, "env", "HOME"),
            {"name": "HOME", "valueFrom": SECRET},
        ),
        (
            {"volumes": [{"name": "cache", "persistentVolumeClaim": {"claimName": "c"}}]},
            ("volumes", "cache"),
            {"name": "cache", "persistentVolumeClaim": {"claimName": "c"}},
        ),
        (
            {
                "containers": [
                    {
                        "name": "yoloserve",
                        "volumeMounts": [{"name": "scratch", "mountPath": "/var/cache/yoloserve"}],
                    }
                ]
            },
            ("containers", 0, "volumeMounts", 0),
            {"name": "scratch", "mountPath": "/var/cache/yoloserve"},
        ),
        (
            {"containers": [{"name": "yoloserve", "securityContext": {"runAsUser": 7}}]},
            ("containers", 0, "securityContext", "readOnlyRootFilesystem"),
            True,
        ),
        (
            {"securityContext": {"fsGroup": 7}},
            ("securityContext", "runAsNonRoot"),
            True,
        ),
        (
            {
                "topologySpreadConstraints": [
                    {"topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}
                ]
            },
            ("topologySpreadConstraints", 0, "maxSkew"),
            1,
        ),
        (
            {"affinity": {"nodeAffinity": {"a": [1]}}},
            ("affinity",),
            {"nodeAffinity": {"a": [1]}},
        ),
        ({"tolerations": [{"operator": "Exists"}]}, ("tolerations",), [{"operator": "Exists"}]),
        ({"imagePullSecrets": [{"name": "mine"}]}, ("imagePullSecrets",), [{"name": "mine"}]),
        ({"priorityClassName": "high"}, ("priorityClassName",), "high"),
    ],
)
def test_what_a_pod_template_asks_for_is_what_the_pod_has(world, spec, path, expected):
    world.edit(podTemplate={"spec": spec})
    found = one(world, "Deployment")["spec"]["template"]["spec"]
    for step in path:
        by_name = isinstance(found, list) and isinstance(step, str)
        found = {item["name"]: item for item in found}[step] if by_name else found[step]
    assert found == expected


def test_pods_run_as_an_account_of_their_own_that_holds_no_token(world):
    pod = one(world, "Deployment")["spec"]["template"]["spec"]
    account = one(world, "ServiceAccount")
    assert pod["serviceAccountName"] == account["metadata"]["name"] == "gate"
    assert account["automountServiceAccountToken"] is False


def test_an_account_named_in_the_pod_template_is_used_and_none_is_made(world):
    world.edit(podTemplate={"spec": {"serviceAccountName": "robot"}})
    assert one(world, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == "robot"
    assert "ServiceAccount" not in kinds(world)


def test_pods_that_ran_before_there_were_accounts_have_none(world):
    world.settle()
    [deployment] = world.deployments().values()
    record = json.loads(deployment["metadata"]["annotations"][RENDER_ANNOTATION])
    record["render"]["version"] = 2
    deployment["metadata"]["annotations"][RENDER_ANNOTATION] = json.dumps(record)
    assert "serviceAccountName" not in one(world, "Deployment")["spec"]["template"]["spec"]
    assert "ServiceAccount" not in kinds(world)
    world.edit(inference={"confidence": 0.5})  # the next revision has one
    assert "ServiceAccount" in kinds(world)


def test_replicas_are_spread_over_nodes_where_that_is_possible(world):
    spec = one(world, "Deployment")["spec"]
    [spread] = spec["template"]["spec"]["topologySpreadConstraints"]
    assert spread["topologyKey"] == "kubernetes.io/hostname"
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"
    assert spread["labelSelector"] == spec["selector"]  # those of the revision: others may go


def test_pods_are_scraped_where_there_is_an_api_for_it(world):
    assert "PodMonitor" not in kinds(world)
    world.monitors = True
    labels = {"release": "prometheus", "yolofleet.io/detector": "mine"}
    world.defaults = replace(world.defaults, monitor_labels=labels)
    monitor = one(world, "PodMonitor")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["metadata"]["labels"]["yolofleet.io/detector"] == "gate"
    labels = one(world, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    given = {each["targetLabel"]: each["sourceLabels"] for each in endpoint["relabelings"]}
    assert given == {
        each: [f"__meta_kubernetes_pod_label_yolofleet_io_{each}"]
        for each in ("detector", "revision")
        if f"yolofleet.io/{each}" in labels
    }
    assert endpoint["port"] in {port["name"] for port in container(world)["ports"]}


OWN_PODS = {"podSelector": {"matchLabels": {"yolofleet.io/detector": "gate"}}}


def policy(world):
    return one(world, "NetworkPolicy")["spec"]


def reached(world):
    """The ports that pods may connect to, without those of DNS."""
    ports = [port["port"] for rule in policy(world)["egress"] for port in rule.get("ports", [])]
    return sorted(set(ports) - {53, 5353})


def test_only_the_serving_port_can_be_connected_to(world):
    world.mesh = False
    [rule] = policy(world)["ingress"]
    assert rule == {"ports": [{"protocol": "TCP", "port": 8080}]}
    labels = one(world, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert policy(world)["podSelector"]["matchLabels"].items() <= labels.items()


def test_the_mesh_keeps_its_ports(world):
    ports = {port["port"] for rule in policy(world)["ingress"] for port in rule["ports"]}
    assert {8080, 15008, 15020, 15090} == ports
    assert {15008, 15012} <= set(reached(world))


@pytest.mark.parametrize(
    ("spec", "ports"),
    [
        ({"model": {"uri": "demo://shapes"}}, []),
        ({"model": {"uri": "file:///models/a.onnx"}}, []),
        ({"model": {"uri": "pvc://models/a.onnx"}}, []),
        ({"model": {"uri": "https://models.example.com/a.onnx"}}, [443]),
        ({"model": {"uri": "http://store:9000/a.onnx"}}, [9000]),
        ({"model": {"uri": "http://[fd00::1]/a.onnx"}}, [80]),
        ({"canary": {"model": {"uri": "http://store/b.onnx"}}}, [80]),
        (
            {
                "podTemplate": {
                    "spec": {
                        "containers": [
                            {
                                "name": "yoloserve",
                                "env": [
                                    {"name": "HTTPS_PROXY", "value": "http://proxy:3128"},
                                    {"name": "http_proxy", "value": "proxy.corp:3129"},
                                    {"name": "ALL_PROXY", "value": ""},
                                    {"name": "NOTE", "value": "proxy.corp:3130"},
                                    {"name": "KEYS", "value": "https://login.example.com/keys"},
                                    {"name": "ODD", "value": "http://[not-an-address"},
                                    {
                                        "name": "YOLOSERVE_URL_HOSTS",
                                        "value": '["*.example.com", "cams:8443"]',
                                    },
                                    {"name": "SECRET", "valueFrom": {"secretKeyRef": {}}},
                                ],
                            }
                        ]
                    }
                }
            },
            [80, 443, 3128, 3129, 8443],
        ),
    ],
)
def test_pods_may_connect_to_what_their_settings_name(world, spec, ports):
    world.mesh = False
    world.edit(**spec)
    assert reached(world) == ports
    assert {"to": [OWN_PODS]} in policy(world)["egress"]


def test_names_can_be_resolved(world):
    ports = [port for rule in policy(world)["egress"] for port in rule.get("ports", [])]
    assert {"protocol": "UDP", "port": 53} in ports
    assert {"protocol": "TCP", "port": 53} in ports


def test_no_pod_reaches_what_the_nodes_link_hands_out(world):
    """Clouds give a node's own credentials to whoever asks at a link-local address."""
    sidecar = {"spec": {"containers": [SIDECAR]}}
    for spec in ({"model": {"uri": "http://store/a.onnx"}}, {"podTemplate": sidecar}):
        world.edit(**spec)
        for rule in policy(world)["egress"]:
            if "to" not in rule:
                assert {port["port"] for port in rule["ports"]} <= {53, 5353}
        blocks = [
            peer["ipBlock"]
            for rule in policy(world)["egress"]
            for peer in rule.get("to", [])
            if "ipBlock" in peer
        ]
        kept_out = {block["cidr"]: block["except"] for block in blocks}
        assert "169.254.0.0/16" in kept_out["0.0.0.0/0"]
        assert "fe80::/10" in kept_out["::/0"]


SIDECAR = {"name": "side", "image": "side:1", "ports": [{"containerPort": 9000}]}


def test_containers_of_ones_own_are_reached_and_reach_what_they_need(world):
    world.mesh = False
    world.edit(podTemplate={"spec": {"containers": [SIDECAR]}})
    [rule] = policy(world)["ingress"]
    assert [port["port"] for port in rule["ports"]] == [8080, 9000]
    [names, anywhere] = policy(world)["egress"]
    assert {"protocol": "UDP", "port": 53} in names["ports"]
    assert "ports" not in anywhere
    assert {"namespaceSelector": {}} in anywhere["to"]
    reach = {"ports": [{"port": 4317}]}
    world.edit(access={"allowTo": [reach]})
    assert reached(world) == [4317]


def test_peers_are_narrowed_and_widened_as_told(world):
    world.mesh = False
    gateways = {"namespaceSelector": {"matchLabels": {"name": "istio-system"}}}
    anywhere = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "store"}}}
    block = {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}
    world.edit(
        access={
            "allowFrom": [gateways, block],
            "allowTo": [{"to": [anywhere], "ports": [{"port": 9000, "protocol": "UDP"}]}],
        }
    )
    [rule] = policy(world)["ingress"]
    assert rule["from"] == [OWN_PODS, gateways, block]
    expected = {"to": [anywhere], "ports": [{"port": 9000, "protocol": "UDP"}]}
    assert expected in policy(world)["egress"]


def test_isolation_can_be_halved_and_switched_off(world):
    world.edit(access={"networkPolicy": "IngressOnly"})
    assert policy(world)["policyTypes"] == ["Ingress"]
    assert "egress" not in policy(world)
    world.edit(access={"networkPolicy": "None"})
    assert "NetworkPolicy" not in kinds(world)


def test_without_hosts_the_virtual_service_is_a_delegate(world):
    route = one(world, "VirtualService")["spec"]
    assert "hosts" not in route
    assert "gateways" not in route
    world.edit(traffic={"hosts": ["gate.example.com"], "gateways": ["istio-system/public"]})
    route = one(world, "VirtualService")["spec"]
    assert route["hosts"] == ["gate.example.com"]
    assert route["gateways"] == ["istio-system/public"]


def test_a_single_replica_has_no_disruption_budget(world):
    world.edit(replicas=1)
    assert "PodDisruptionBudget" not in kinds(world)


def test_a_canary_that_answers_requests_has_a_disruption_budget_of_its_own(world):
    def budgets():
        found = [m for m in objects(world) if m["kind"] == "PodDisruptionBudget"]
        return {m["metadata"]["name"]: m["spec"]["selector"]["matchLabels"] for m in found}

    model = {"uri": "https://m/b.onnx"}
    world.edit(canary={"model": model, "weight": 0, "replicas": 2})
    world.settle()
    assert list(budgets()) == ["gate"], "a dark canary may be drained at once"
    world.edit(canary={"model": model, "weight": 10, "replicas": 2})
    world.settle()
    canary = world.status().canary.revision
    assert budgets()[canary]["yolofleet.io/revision"] == canary
    world.edit(canary={"model": model, "weight": 10, "replicas": 1})
    world.settle()
    assert list(budgets()) == ["gate"], "a budget over one pod would block a drain"


def test_every_port_says_its_protocol(world):
    """List keys of server-side apply must be complete."""
    for manifest in objects(world):
        for port in manifest.get("spec", {}).get("ports", []):
            assert port["protocol"] == "TCP"
    assert container(world)["ports"][0]["protocol"] == "TCP"


@pytest.mark.parametrize("template", sorted(TEMPLATES.glob("*.j2")), ids=lambda p: p.stem)
def test_templates_have_holes_and_no_logic(template):
    assert "{%" not in template.read_text()


def test_an_unset_hole_is_an_error():
    with pytest.raises(Exception, match="undefined"):
        render.render("service.yaml.j2", name="x")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)  # fmt: skip


def without_none(value):
    if isinstance(value, dict):
        return {k: without_none(v) for k, v in value.items() if v is not None}
    return [without_none(v) for v in value] if isinstance(value, list) else value


@given(json_values)
@example(1e-05)
@example("on")
@example("hole: namespace")
def test_a_hole_gives_what_it_was_given(value):
    holes = {"namespace": "n", "labels": {}, "owner": {}, "selector": {"key": value}}
    made = render.render("service.yaml.j2", name="x", **holes)
    assert made["spec"]["selector"] == without_none({"key": value})


def test_the_caller_may_change_what_was_rendered(world):
    first = one(world, "Deployment")
    first["spec"].clear()
    assert one(world, "Deployment")["spec"]


def test_the_record_on_the_deployment_fits_an_annotation(world):
    world.edit(model={"uri": "demo://shapes", "classes": [f"class {n}" for n in range(1000)]})
    annotation = one(world, "Deployment")["metadata"]["annotations"]["yolofleet.io/render"]
    assert len(annotation) < 200_000
    assert re.search('"render"', annotation)
    assert isinstance(world.decide().revisions[0].revision, Revision)
