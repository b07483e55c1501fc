"""What the chart makes of its values."""

import ast
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from yolofleet.api.analysis import Mode
from yolofleet.plan.defaults import GpuSeries
from yolofleet.routers.exposure import Allowed
from yolofleet.runtime.quantity import amount
from yolofleet.settings import InvalidSettings, read_settings
from yolofleet.workloads import ray_service

WRITES = {"create", "update", "patch", "delete", "deletecollection"}
CHILDREN = {
    ("apps", "deployments"),
    ("apps", "controllerrevisions"),
    ("", "services"),
    ("autoscaling", "horizontalpodautoscalers"),
    ("policy", "poddisruptionbudgets"),
    ("", "serviceaccounts"),
    ("", "configmaps"),
    ("networking.k8s.io", "networkpolicies"),
    ("monitoring.coreos.com", "podmonitors"),
    ("networking.istio.io", "virtualservices"),
    ("networking.istio.io", "destinationrules"),
    ("gateway.networking.k8s.io", "httproutes"),
}


def pod_specs(manifests):
    for manifest in manifests:
        if manifest["kind"] == "Deployment":
            yield manifest["spec"]["template"]["spec"]
        if manifest["kind"] == "Pod":
            yield manifest["spec"]


def env(chart, **values):
    container = chart.one("Deployment", **values)["spec"]["template"]["spec"]["containers"][0]
    return {entry["name"]: entry["value"] for entry in container["env"]}


def granted(role):
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_helm_finds_nothing_to_complain_about(chart, values):
    assert "0 chart(s) failed" in chart.lint(**values)


def test_every_object_says_whose_it_is(chart, values):
    for manifest in chart.render(**values):
        if manifest["kind"] == "CustomResourceDefinition":
            continue
        labels = manifest["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "fleet"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert all(isinstance(value, str) for value in labels.values())


def test_every_object_of_a_namespace_names_it(chart, values):
    cluster_scoped = {
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "ValidatingWebhookConfiguration",
    }
    for manifest in chart.render(**values):
        if manifest["kind"] not in cluster_scoped:
            assert manifest["metadata"]["namespace"] in {
                "platform",
                *values.get("watchNamespaces", []),
            }


def test_pods_pass_the_restricted_security_standard(chart, values):
    for spec in pod_specs(chart.render(**values)):
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}


def test_services_beside_a_pod_make_it_no_settings(chart):
    """Of a Service yolofleet-metrics Kubernetes makes YOLOFLEET_METRICS_PORT=tcp://…"""
    for spec in pod_specs(chart.render()):
        assert spec["enableServiceLinks"] is False


def test_selectors_find_the_operators_pods_and_not_the_tests(chart):
    manifests = chart.render()
    [deployment] = [m for m in manifests if m["kind"] == "Deployment"]
    [service] = [m for m in manifests if m["kind"] == "Service"]
    [budget] = [m for m in manifests if m["kind"] == "PodDisruptionBudget"]
    [test_pod] = [m for m in manifests if m["kind"] == "Pod"]
    pod_labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    for selector in (
        deployment["spec"]["selector"]["matchLabels"],
        service["spec"]["selector"],
        budget["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= pod_labels
        assert not selector.items() <= test_pod["metadata"]["labels"].items()


def test_no_role_holds_a_wildcard(chart, values):
    for manifest in chart.render(**values):
        if "Role" in manifest["kind"]:
            assert "*" not in json.dumps(manifest.get("rules", []))


def test_the_operator_writes_children_status_and_events_and_nothing_else(chart):
    role = chart.one("ClusterRole")
    written = {(g, r) for g, r, verb in granted(role) if verb in WRITES}
    assert written == CHILDREN | {
        ("yolofleet.io", "yolodetectors/status"),
        ("", "events"),
        ("yolofleet.io", "yolodetectors/finalizers"),
    }


def test_children_can_be_read_applied_and_pruned(chart):
    role = granted(chart.one("ClusterRole"))
    for group, resource in CHILDREN:
        for verb in ("get", "list", "watch", "create", "patch", "delete"):
            assert (group, resource, verb) in role


def test_with_namespaces_listed_nothing_is_written_outside_of_them(chart):
    namespaces = ["cameras", "labs"]
    manifests = chart.render(watchNamespaces=namespaces)
    cluster = granted(chart.one("ClusterRole", watchNamespaces=namespaces))
    assert not {verb for _, _, verb in cluster} & WRITES
    assert not {r for _, r, _ in cluster} & {"pods", "yolodetectors"}
    roles = {
        m["metadata"]["namespace"]: granted(m)
        for m in manifests
        if m["kind"] == "Role" and m["metadata"]["name"].endswith("-detectors")
    }
    assert set(roles) == set(namespaces)
    everywhere = granted(chart.one("ClusterRole"))
    outside = {"nodes", "customresourcedefinitions"}
    namespaced = {right for right in everywhere if right[1] not in outside}
    assert roles["labs"] == roles["cameras"] == namespaced
    bound = {m["metadata"]["namespace"] for m in manifests if m["kind"] == "RoleBinding"}
    assert bound == {"platform", *namespaces}


def test_only_one_lease_can_be_changed(chart):
    role = chart.one("Role", "fleet-yolofleet-leader")
    for rule in role["rules"]:
        assert rule["resources"] == ["leases"]
        if rule["verbs"] != ["create"]:
            assert rule["resourceNames"] == [env(chart)["YOLOFLEET_LEASE_NAME"]]
    assert env(chart)["YOLOFLEET_LEASE_NAMESPACE"] == role["metadata"]["namespace"]


def test_viewers_read_and_editors_write_detectors_but_not_their_status(chart):
    viewer = chart.one("ClusterRole", "fleet-yolofleet-viewer")
    editor = chart.one("ClusterRole", "fleet-yolofleet-editor")
    assert not {verb for _, _, verb in granted(viewer)} & WRITES
    assert {resource for _, resource, _ in granted(editor)} == {
        "yolodetectors",
        "yolodetectors/scale",
    }
    assert viewer["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] == "true"
    assert "rbac.authorization.k8s.io/aggregate-to-view" not in editor["metadata"]["labels"]


def test_images_default_to_this_release_and_can_be_any(chart):
    version = yaml.safe_load((chart.folder / "Chart.yaml").read_text())["appVersion"]
    assert operator_image(chart) == f"registry.example.com/yolofleet/operator:{version}"
    assert (
        env(chart)["YOLOFLEET_IMAGE_CPU"]
        == f"registry.example.com/yolofleet/yoloserve:{version}-cpu"
    )
    given = {"cpu": "r/a:1", "torch": "r/b:1", "gpu": "r/c:1", "ray": "r/d:1"}
    given |= {"pullPolicy": "Never"}
    told = env(chart, servingImages=given)
    assert told["YOLOFLEET_IMAGE_CPU"] == "r/a:1"
    assert told["YOLOFLEET_IMAGE_TORCH"] == "r/b:1"
    assert told["YOLOFLEET_IMAGE_GPU"] == "r/c:1"
    assert told["YOLOFLEET_IMAGE_RAY"] == "r/d:1"
    assert told["YOLOFLEET_IMAGE_PULL_POLICY"] == "Never"


def operator_image(chart, **values):
    return chart.one("Deployment", **values)["spec"]["template"]["spec"]["containers"][0]["image"]


def test_a_released_chart_names_its_images_by_digest_unless_others_are_given(chart, tmp_path):
    one, two = (f"sha256:{letter * 64}" for letter in "ab")
    released = chart.as_released(
        tmp_path,
        version="1.2.3",
        registry="r.example.com/a",
        digests={"operator:1.2.3": one, "yoloserve:1.2.3-cpu": two},
    )
    assert operator_image(released) == f"r.example.com/a/operator:1.2.3@{one}"
    told = env(released)
    assert told["YOLOFLEET_IMAGE_CPU"] == f"r.example.com/a/yoloserve:1.2.3-cpu@{two}"
    assert told["YOLOFLEET_IMAGE_GPU"] == "r.example.com/a/yoloserve:1.2.3-gpu"
    assert operator_image(released, image={"tag": "mine"}) == "r.example.com/a/operator:mine"
    assert operator_image(released, image={"repository": "b/c"}) == "b/c:1.2.3"
    assert env(released, servingImages={"cpu": "b/d:1"})["YOLOFLEET_IMAGE_CPU"] == "b/d:1"
    assert "0 chart(s) failed" in released.lint()


def test_the_operator_reads_every_setting_that_the_chart_gives(chart):
    told = env(
        chart,
        watchNamespaces=["cameras", "labs"],
        drainSeconds=7,
        accelerators={"nodesFollowPods": True},
        workers=3,
        logLevel="warning",
        analysis={"default": "DryRun"},
        detectorMonitors={"labels": {"release": "prom", "team": "a"}},
        servingImages={"cpu": "a:1", "torch": "b:1", "gpu": "c:1", "pullPolicy": "Always"},
        traffic={"allowedHosts": ["*.example.com"], "allowedGateways": ["edge/*", "mesh"]},
    )
    settings = read_settings(told)
    assert settings.namespaces == ("cameras", "labs")
    assert settings.defaults.drain_seconds == 7
    assert settings.defaults.nodes_follow_pods
    assert settings.workers == 3
    assert settings.defaults.monitor_labels == {"release": "prom", "team": "a"}
    assert settings.log_level == "WARNING"
    assert settings.defaults.analysis is Mode.DRY_RUN
    assert settings.defaults.allowed == Allowed(("*.example.com",), ("edge/*", "mesh"))
    assert settings.defaults.image_pull_policy == "Always"
    assert settings.lease_name == "fleet-yolofleet"
    assert settings.lease_namespace == "platform"
    assert settings.metrics_port == 8080


def test_monitors_of_detectors_can_be_switched_off(chart):
    told = env(chart, detectorMonitors={"enabled": False})
    assert read_settings(told).defaults.monitor_labels is None


def test_the_defaults_of_chart_and_operator_agree(chart):
    told = env(chart)
    left_open = {name: told[name] for name in told if "IMAGE_" in name and "POLICY" not in name}
    given, default = read_settings(told), read_settings(left_open)
    assert given.workers == default.workers
    assert given.log_level == default.log_level
    assert given.defaults.nodes_follow_pods is default.defaults.nodes_follow_pods is False
    assert given.namespaces == default.namespaces == ()
    assert given.metrics_port == default.metrics_port
    known = replace(given.defaults, operator=None)  # who it is, only the chart can tell
    assert known == default.defaults


def test_one_replica_has_no_disruption_budget_that_would_block_a_drain(chart):
    kinds = {m["kind"] for m in chart.render(replicas=1)}
    assert "PodDisruptionBudget" not in kinds


def test_operators_that_are_broken_block_no_drain(chart):
    budget = chart.one("PodDisruptionBudget")["spec"]
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_the_pod_of_helm_test_may_run_where_the_operator_may(chart):
    placed = {
        "nodeSelector": {"pool": "system"},
        "tolerations": [{"key": "system", "operator": "Exists"}],
        "priorityClassName": "system-cluster-critical",
        "imagePullSecrets": [{"name": "registry"}],
    }
    for spec in pod_specs(chart.render(**placed)):
        assert {name: spec[name] for name in placed} == placed


def test_the_operator_may_use_as_much_memory_as_was_measured(chart):
    """At 1,000 detectors, with half as much again for what a measurement did not see."""
    told = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text()
    [row] = [line for line in told.splitlines() if line.startswith("| memory at its peak")]
    peak = max(int(number) for number in re.findall(r"([0-9]+) MiB", row))
    [container] = chart.one("Deployment")["spec"]["template"]["spec"]["containers"]
    limit = amount(container["resources"]["limits"]["memory"])
    assert limit >= 1.5 * peak * 2**20


def test_nobody_reaches_the_operator_but_for_metrics_and_reviews(chart):
    policy = chart.one("NetworkPolicy")["spec"]
    deployment = chart.one("Deployment")["spec"]["template"]
    assert policy["podSelector"]["matchLabels"].items() <= deployment["metadata"]["labels"].items()
    assert [port["port"] for rule in policy["ingress"] for port in rule["ports"]] == ["metrics"]
    prometheus = {"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}
    closed = {"networkPolicy": {"metricsFrom": [prometheus]}, "webhook": {"enabled": True}}
    metrics, reviews = chart.one("NetworkPolicy", **closed)["spec"]["ingress"]
    *scrapers, tester = metrics["from"]
    assert scrapers == [prometheus]
    installed = chart.one("Pod", "fleet-yolofleet-test")["metadata"]
    assert tester.keys() == {"podSelector"}, "in the operator's own namespace alone"
    assert tester["podSelector"]["matchLabels"].items() <= installed["labels"].items()
    assert reviews == {"ports": [{"port": "webhook", "protocol": "TCP"}]}
    off = chart.render(networkPolicy={"enabled": False})
    assert "NetworkPolicy" not in {m["kind"] for m in off}


def test_a_process_with_a_deaf_watch_is_scraped_before_it_is_restarted(chart):
    """The gauge that tells of it ends with the process; the alert goes by what was scraped."""
    monitor = chart.one("ServiceMonitor", metrics={"serviceMonitor": {"enabled": True}})["spec"]
    [operator] = chart.one("Deployment")["spec"]["template"]["spec"]["containers"]
    liveness = operator["livenessProbe"]
    [endpoint] = monitor["endpoints"]
    ends_after = (liveness["failureThreshold"] - 1) * liveness["periodSeconds"]
    assert int(endpoint["interval"].removesuffix("s")) < ends_after


def test_the_operator_knows_the_labels_by_which_pods_let_it_read_their_evidence(chart):
    operator = read_settings(env(chart)).defaults.operator
    deployment = chart.one("Deployment")
    assert operator.namespace == deployment["metadata"]["namespace"]
    assert operator.labels == deployment["spec"]["selector"]["matchLabels"]
    assert operator.labels.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()


def test_the_operator_does_not_reach_the_credentials_of_its_node(chart):
    names, anywhere, api_server = chart.one("NetworkPolicy")["spec"]["egress"]
    assert 80 not in {port["port"] for port in api_server["ports"]}
    assert {port["port"] for port in names["ports"]} == {53, 5353}
    kept = {p["ipBlock"]["cidr"]: p["ipBlock"]["except"] for p in anywhere["to"] if "ipBlock" in p}
    assert "169.254.0.0/16" in kept["0.0.0.0/0"]
    assert "fe80::/10" in kept["::/0"]


def test_the_api_server_is_reached_also_on_a_node_which_to_some_plugins_has_no_address(chart):
    *_, api_server = chart.one("NetworkPolicy")["spec"]["egress"]
    assert api_server == {
        "ports": [{"port": port, "protocol": "TCP"} for port in ray_service.API_SERVER]
    }
    policy = chart.one("NetworkPolicy", networkPolicy={"apiServerPorts": [7443]})
    assert policy["spec"]["egress"][-1] == {"ports": [{"port": 7443, "protocol": "TCP"}]}
    assert (
        len(chart.one("NetworkPolicy", networkPolicy={"apiServerPorts": []})["spec"]["egress"]) == 2
    )


def test_the_operator_asks_the_prometheus_that_the_chart_names(chart):
    assert read_settings(env(chart)).prometheus_url == ""
    pod = chart.one("Deployment")["spec"]["template"]["spec"]
    assert "volumes" not in pod
    url = "https://thanos.monitoring.svc:9091/base"
    named = {"prometheus": {"url": url, "tokenSecret": "prom-token", "caConfigMap": "prom-ca"}}
    settings = read_settings(env(chart, **named))
    assert settings.prometheus_url == url
    pod = chart.one("Deployment", **named)["spec"]["template"]["spec"]
    mounted = {m["mountPath"]: m["name"] for m in pod["containers"][0]["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for file, kind, key, name in (
        (settings.prometheus_token_file, "secret", "secretName", "prom-token"),
        (settings.prometheus_ca_file, "configMap", "name", "prom-ca"),
    ):
        source = volumes[mounted[file.rpartition("/")[0]]][kind]
        assert (source[key], source["optional"]) == (name, True)
    with_webhook = chart.one("Deployment", **named, webhook={"enabled": True})
    assert len(with_webhook["spec"]["template"]["spec"]["volumes"]) == 3
    with pytest.raises(chart.Refused, match="url"):
        chart.render(prometheus={"url": "prometheus:9090"})


@pytest.mark.parametrize(
    ("value", "group", "resource", "kind"),
    [
        ("keda", "keda.sh", "scaledobjects", "keda.sh/v1alpha1/ScaledObject"),
        ("ray", "ray.io", "rayservices", "ray.io/v1/RayService"),
    ],
)
def test_rights_to_others_kinds_are_given_where_their_api_is_or_is_to_be(
    chart, value, group, resource, kind
):
    def may(*arguments, **values):
        named = ("ClusterRole", "fleet-yolofleet")
        [role] = [
            m
            for m in chart.render(*arguments, **values)
            if (m["kind"], m["metadata"]["name"]) == named
        ]
        return (group, resource, "patch") in granted(role)

    assert not may()
    assert may(**{value: {"enabled": True}})
    assert may("--api-versions", kind)


def test_rights_to_claims_are_given_where_their_api_is_or_is_to_be(chart):
    def may(*arguments, **values):
        manifests = chart.render(*arguments, **values)
        wide, narrow = (
            {right for m in manifests if m["kind"] == kind for right in granted(m)}
            for kind in ("ClusterRole", "Role")
        )
        api = "resource.k8s.io"
        whole = {(api, "deviceclasses", "list"), (api, "resourceslices", "list")}
        own = {(api, "resourceclaimtemplates", "patch"), (api, "resourceclaims", "list")}
        return whole <= wide and own <= (narrow if values.get("watchNamespaces") else wide)

    assert not may()
    assert may(dra={"enabled": True})
    assert may("--api-versions", "resource.k8s.io/v1/ResourceClaimTemplate")
    assert may(dra={"enabled": True}, watchNamespaces=["shop"])


def test_keda_asks_by_the_authentication_that_the_chart_names(chart):
    assert read_settings(env(chart)).defaults.keda_authentication == ""
    named = {"keda": {"authentication": "to-prometheus"}, "prometheus": {"url": "http://prom:9090"}}
    defaults = read_settings(env(chart, **named)).defaults
    assert defaults.keda_authentication == "to-prometheus"
    assert defaults.prometheus == "http://prom:9090"


def test_keda_asks_for_the_series_of_gpus_that_the_chart_names(chart):
    assert read_settings(env(chart)).defaults.gpu == GpuSeries()
    renamed = {"keda": {"gpu": {"active": "gr_engine_util_ratio", "exporterNamespace": ""}}}
    told = read_settings(env(chart, **renamed)).defaults.gpu
    assert told == GpuSeries("gr_engine_util_ratio", exporter="")
    with pytest.raises(chart.Refused, match="utilization"):
        chart.render(keda={"gpu": {"utilization": 'util{pod="a"}'}})


def test_the_page_of_the_fleet_is_served_when_asked_for_and_behind_no_port(chart):
    assert "YOLOFLEET_FLEET_PORT" not in env(chart)
    shown = {"fleetPage": {"enabled": True}}
    assert read_settings(env(chart, **shown)).fleet_port == 8083
    assert "8083" not in str([each for each in chart.render(**shown) if each["kind"] == "Service"])
    pod = chart.one("Deployment", **shown)["spec"]["template"]["spec"]
    assert [port["containerPort"] for port in pod["containers"][0]["ports"]] == [8080]


def test_a_service_monitor_is_made_when_asked_for(chart):
    assert "ServiceMonitor" not in {m["kind"] for m in chart.render()}
    asked = {"serviceMonitor": {"enabled": True, "interval": "10s", "labels": {"release": "prom"}}}
    monitor = chart.one("ServiceMonitor", metrics=asked)
    service = chart.one("Service", "fleet-yolofleet-metrics")
    assert monitor["metadata"]["labels"]["release"] == "prom"
    selected = monitor["spec"]["selector"]["matchLabels"].items()
    assert selected <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    assert monitor["spec"]["endpoints"][0]["interval"] == "10s"
    assert monitor["spec"]["endpoints"][0]["honorLabels"] is True, "a detector has a namespace"


def test_rules_are_those_of_the_file_with_the_releases_own_names(chart):
    assert "PrometheusRule" not in {m["kind"] for m in chart.render()}
    asked = {"enabled": True, "labels": {"release": "prom"}, "errorBudget": 0.001}
    asked["runbooks"] = "https://wiki.example.com/yolofleet"
    elsewhere = {"gpu": {"exporterNamespace": "monitoring"}}
    made = chart.one("PrometheusRule", metrics={"rules": asked}, keda=elsewhere)
    assert made["metadata"]["labels"]["release"] == "prom"
    text = (chart.folder / "files" / "rules.yaml").read_text()
    ours = "https://example.com/docs/runbooks"
    for before, after in {
        "vector(0.01)": "vector(0.001)",
        '{name="yolofleet"}': '{name="fleet-yolofleet"}',
        'namespace="gpu-operator"': 'namespace="monitoring"',
        ours: asked["runbooks"],
    }.items():
        assert before in text
        text = text.replace(before, after)
    assert made["spec"] == yaml.safe_load(text)
    for asked["runbooks"] in ("https://wiki.example.com/x: y", 'https://wiki.example.com/"#'):
        made = chart.one("PrometheusRule", metrics={"rules": asked}, keda=elsewhere)["spec"]
        [*_, url] = [
            rule["annotations"]["runbook_url"]
            for group in made["groups"]
            for rule in group["rules"]
            if "alert" in rule
        ]
        assert url.startswith(asked["runbooks"] + "/Yolo")
    del asked["runbooks"]
    alerts = [
        rule["annotations"]
        for group in chart.one("PrometheusRule", metrics={"rules": asked})["spec"]["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]
    assert {tuple(each) for each in alerts} == {("description", "summary")}
    with pytest.raises(chart.Refused, match="errorBudget"):
        chart.render(metrics={"rules": {"errorBudget": 1}})


def test_pages_say_what_the_lease_is_called_that_rules_know_the_operator_by(chart):
    lease = env(chart, name="prod-yolofleet", release="prod")["YOLOFLEET_LEASE_NAME"]
    rules = chart.text(release="prod", metrics={"rules": {"enabled": True}})
    assert f'absent(leader_election_master_status{{name="{lease}"}})' in rules
    for page in ("guides/monitoring.md", "runbooks/YoloFleetNoLeader.md"):
        told = (Path(__file__).parents[2] / "docs" / page).read_text()
        assert "`kubectl get lease -n NS`" in told, page
        assert f"`{lease.replace('prod', 'RELEASE')}`" in told, page


def test_dashboards_are_where_grafanas_sidecar_looks_for_them(chart):
    assert not [m for m in chart.render() if "grafana_dashboard" in m["metadata"].get("labels", {})]
    asked = {"enabled": True, "annotations": {"grafana_folder": "YoloFleet"}}
    maps = [m for m in chart.render(metrics={"dashboards": asked}) if m["kind"] == "ConfigMap"]
    shown = {}
    for each in maps:
        assert each["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert each["metadata"]["annotations"] == asked["annotations"]
        shown |= each["data"]
    elsewhere = {"gpu": {"exporterNamespace": "monitoring"}}
    moved = str(chart.render(metrics={"dashboards": asked}, keda=elsewhere))
    assert ("gpu-operator" in str(maps), "gpu-operator" in moved) == (True, False)
    files = (chart.folder / "files" / "dashboards").glob("*.json")
    assert shown == {f"yolofleet-{file.name}": file.read_text() for file in files}
    assert len(maps) == 3


def test_the_crd_is_the_generated_one_and_stays_on_uninstall(chart):
    name = "yolodetectors.yolofleet.io"
    crd = chart.one("CustomResourceDefinition", name)
    generated = chart.folder.parents[1] / "crds" / f"{name}.yaml"
    annotations = crd["metadata"].pop("annotations")
    assert crd == yaml.load(generated.read_text(), Loader=yaml.CSafeLoader)
    assert annotations["helm.sh/resource-policy"] == "keep"


def test_the_crd_can_go_with_the_release_or_be_left_to_others(chart):
    name = "yolodetectors.yolofleet.io"
    crd = chart.one("CustomResourceDefinition", name, crds={"keep": False})
    assert "helm.sh/resource-policy" not in crd["metadata"]["annotations"]
    kinds = {m["kind"] for m in chart.render(crds={"enabled": False})}
    assert "CustomResourceDefinition" not in kinds


def test_a_long_release_name_still_makes_legal_names(chart):
    names = [m["metadata"]["name"] for m in chart.render(release="a" * 53)]
    assert all(len(name) <= 63 for name in names)


def test_an_older_cluster_is_refused(chart):
    with pytest.raises(chart.Refused, match=r"incompatible with Kubernetes v1\.28"):
        chart.text("--kube-version", "1.28.0")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"replica": 3}, "replica"),
        ({"replicas": "2"}, "replicas"),
        ({"replicas": -1}, "replicas"),
        ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
        ({"image": {"repository": None, "tags": ""}}, "tags"),
        ({"image": {"tag": "a:b"}}, "tag"),
        ({"servingImages": {"cuda": "x"}}, "cuda"),
        ({"watchNamespaces": "cameras"}, "watchNamespaces"),
        ({"watchNamespaces": ["Cameras"]}, "watchNamespaces"),
        ({"logLevel": "loud"}, "logLevel"),
        ({"drainSeconds": 3600}, "drainSeconds"),
        ({"workers": 0}, "workers"),
        ({"crds": {"enabled": "yes"}}, "enabled"),
        ({"resources": {"requests": {"cpu": "much"}}}, "cpu"),
        ({"metrics": {"serviceMonitor": {"interval": "often"}}}, "interval"),
        ({"podLabels": {"on": True}}, "podLabels"),
        ({"nameOverride": "a b"}, "nameOverride"),
        ({"detectorMonitors": {"labels": {"team": "video,edge"}}}, "team"),
        ({"detectorMonitors": {"labels": {"the team": "edge"}}}, "the team"),
        ({"metrics": {"rules": {"errorBudget": "0.051"}}}, "errorBudget"),
        ({"metrics": {"rules": {"errorBudget": "0.00"}}}, "errorBudget"),
    ],
)
def test_a_wrong_value_is_refused_by_name(chart, wrong: dict[str, Any], told: str):
    with pytest.raises(chart.Refused) as refused:
        chart.text(**wrong)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("*", True),
        ("*.cams.example.com", True),
        ("Gate.Example.COM", True),
        ("gate", True),
        ("gate-1.1st.svcs", True),
        ("gate.shop.svc", False),
        ("*.shop.SVC.example.com", False),
        ("gate.local", False),
        ("10.0.0.1", False),
        ("1", False),
        ("a..b.example.com", False),
        ("a-.example.com", False),
        (f"{'x' * 64}.example.com", False),
        (".".join(["x" * 63] * 4), False),
    ],
)
def test_hosts_are_allowed_by_the_chart_as_by_the_operator(chart, host, allowed):
    told = env(chart) | {"YOLOFLEET_ALLOWED_HOSTS": host}
    asked = {"traffic": {"allowedHosts": [host]}}
    if allowed:
        assert env(chart, **asked) == told
        read_settings(told)
    else:
        with pytest.raises(chart.Refused, match="allowedHosts"):
            chart.render(**asked)
        with pytest.raises(InvalidSettings):
            read_settings(told)


@pytest.mark.parametrize("budget", ["0.005", "0.05", ".02", "0.0100"])
def test_the_budget_may_be_given_by_set_of_which_helm_makes_a_string(chart, budget):
    arguments = ("--set", f"metrics.rules.enabled=true,metrics.rules.errorBudget={budget}")
    [rules] = [m for m in chart.render(*arguments) if m["kind"] == "PrometheusRule"]
    assert rules["spec"]["groups"][0]["rules"][0]["expr"] == f"vector({budget})"


def test_a_chart_of_which_this_is_a_part_may_switch_it_off_by_the_usual_name(chart):
    assert chart.render(enabled=True) == chart.render()


def shape(node):
    """Return what kind of value is where."""
    if isinstance(node, dict):
        return {key: shape(value) for key, value in node.items()}
    return [shape(item) for item in node] if isinstance(node, list) else type(node)


def test_names_that_yaml_takes_for_something_else_stay_names(chart):
    def named(seven, twelve, on, account, priority):
        return chart.render(
            release=twelve,
            watchNamespaces=[seven],
            nameOverride=twelve,
            fullnameOverride=on,
            serviceAccount={"name": account},
            priorityClassName=priority,
            prometheus={"tokenSecret": seven, "caConfigMap": seven},
            webhook={"enabled": True, "certManager": {"enabled": True}},
        )

    plain = named("seven", "twelve", "fleet", "account", "high")
    assert shape(named("7", "12", "on", "77", "34")) == shape(plain)


@pytest.mark.parametrize("release", ["34", "a.b"])
def test_a_release_whose_services_could_not_be_called_by_it_is_told_before_it_is_begun(
    chart, release
):
    with pytest.raises(chart.Refused, match="set fullnameOverride"):
        chart.text(release=release)
    assert chart.text(release=release, fullnameOverride="fleet")
    with pytest.raises(chart.Refused, match="set fullnameOverride"):
        chart.text(fullnameOverride=release)


def leaves(schema, path=()):
    for name, sub in schema.get("properties", {}).items():
        yield (*path, name), sub
        yield from leaves(sub, (*path, name))


def test_every_value_is_described_and_every_described_value_exists(chart):
    schema = json.loads((chart.folder / "values.schema.json").read_text())
    defaults = yaml.safe_load((chart.folder / "values.yaml").read_text())

    def paths(node, path=()):
        for name, value in node.items():
            yield (*path, name)
            if isinstance(value, dict) and name not in {
                "requests",
                "limits",
                "labels",
            }:  # free-form
                yield from paths(value, (*path, name))

    described = {path: sub["description"] for path, sub in leaves(schema)}
    assert set(paths(defaults)) == set(described) - {("global",), ("enabled",)}


def test_no_object_of_the_schema_takes_what_it_does_not_know(chart):
    schema = json.loads((chart.folder / "values.schema.json").read_text())
    for path, sub in ((("",), schema), *leaves(schema)):
        if "properties" in sub:
            assert sub["additionalProperties"] is False, path


def test_the_script_of_helm_test_reaches_the_pod_as_written(chart):
    [pod] = [m for m in chart.render() if m["kind"] == "Pod"]
    script, operator = pod["spec"]["containers"][0]["args"]
    written = (chart.folder / "files" / "installed.py").read_text()
    assert ast.dump(ast.parse(script)) == ast.dump(ast.parse(written))
    assert operator == "fleet-yolofleet-metrics.platform.svc"


def test_notes_name_a_namespace_that_the_operator_watches(chart, tmp_path):
    told = chart.notes(tmp_path, watchNamespaces=["cameras"])
    assert "wait yd/gate" in told
    assert "namespace: cameras" in told


def test_notes_warn_of_images_that_nobody_has_pushed(chart, tmp_path):
    told = chart.notes(tmp_path / "checkout")
    assert "nobody has pushed the images" in told
    image, serving = {"repository": "r/operator"}, {"cpu": "r/yoloserve:1"}
    assert "pushed" in chart.notes(tmp_path / "half", image=image)
    assert "pushed" not in chart.notes(tmp_path / "all", image=image, servingImages=serving)
    released = chart.as_released(
        tmp_path / "released", version="1.2.3", registry="r", digests={"operator:1.2.3": "sha256:0"}
    )
    assert "pushed" not in released.notes(tmp_path / "copy")
