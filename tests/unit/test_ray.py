"""A RayService: what is written, and what its status means; that is as KubeRay 1.5.1 has it."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from yolofleet.api.names import DETECTOR_LABEL, RAY_LABEL, REVISION_LABEL
from yolofleet.api.pod_template import EVIDENCE_PORT, RAY_TAKES
from yolofleet.plan.inventory import Inventory
from yolofleet.plan.selectors import Device
from yolofleet.workloads import ray_service
from yolofleet.workloads.serve_config import Autoscaling, ServeConfig

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
MADE = "2030-01-01T11:00:00Z"
TRACEBACK = """\
The deployment failed to start 3 times in a row.
Traceback (most recent call last):
  File "x.py", line 1, in <module>
yoloserve.errors.DigestMismatch: another digest

"""
ON_RAY = {"engine": "ray"}
REDIS = {"address": "redis.shop.svc:6380", "password": {"secretName": "redis", "key": "word"}}


@pytest.fixture
def made(world):
    """Return the objects of a detector on Ray, by kind and name."""

    def make(**spec):
        world.edit(**{"runtime": ON_RAY} | spec)
        world.reconcile()
        return world.children

    return make


@pytest.fixture
def service(made, world):
    def make(**spec):
        children = made(**spec)
        return children["RayService", world.decide().stable]

    return make


def deployment(service):
    [application] = json.loads(service["spec"]["serveConfigV2"])["applications"]
    [deployment] = application["deployments"]
    return deployment


# written


def test_a_revision_on_ray_is_one_service_with_one_replica_in_each_worker(service):
    made = service(resources={"requests": {"cpu": "1500m"}})
    spec = made["spec"]
    cluster, [group] = spec["rayClusterConfig"], spec["rayClusterConfig"]["workerGroupSpecs"]
    assert spec["upgradeStrategy"] == {"type": "None"}
    assert spec["excludeHeadPodFromServeSvc"]
    assert cluster["enableInTreeAutoscaling"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert (
        "cpu"
        not in cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    )
    assert group["rayStartParams"]["num-cpus"] == "2", "whole ones, rounded up"
    assert deployment(made)["ray_actor_options"] == {"num_cpus": 2, "num_gpus": 0}
    bounds = deployment(made)["autoscaling_config"]
    assert (bounds["min_replicas"], bounds["max_replicas"]) == (2, 2)


@pytest.mark.parametrize(("proxy", "flag"), [("haproxy", "1"), ("ray", "0"), (None, "1")])
def test_head_and_workers_have_the_same_proxy_which_repeats_nothing(service, proxy, flag):
    cluster = service(runtime=ON_RAY | {"ray": {"proxy": proxy} if proxy else {}})["spec"]
    [group] = cluster["rayClusterConfig"]["workerGroupSpecs"]
    for pod in (cluster["rayClusterConfig"]["headGroupSpec"], group):
        [container] = pod["template"]["spec"]["containers"]
        env = {each["name"]: each["value"] for each in container["env"]}
        assert env["RAY_SERVE_ENABLE_HA_PROXY"] == flag
        assert env["RAY_SERVE_HAPROXY_RETRY_ON"] == "conn-failure", "what nobody has seen yet"


def test_another_proxy_is_another_revision(world):
    def named(**ray):
        world.edit(runtime=ON_RAY | {"ray": ray})
        return world.decide().stable

    assert named() == named(proxy="haproxy") != named(proxy="ray")


OF_GPUS = ON_RAY | {"image": "ray:gpu"}
CLASS = "gpu.nvidia.com"


def gpu_node(number):
    ready = [{"type": "Ready", "status": "True"}]
    offered = {"allocatable": {"nvidia.com/gpu": number}, "conditions": ready}
    return {"metadata": {"name": "n", "labels": {}}, "spec": {}, "status": offered}


def no_part_of_the_head(cluster):
    head = json.dumps(cluster["headGroupSpec"])
    return "gpu" not in head.replace("ray:gpu", "") and "claims" not in head.lower()


def test_gpus_of_a_replica_are_those_of_its_worker(service, world):
    world.nodes = [gpu_node("8")]
    made = service(runtime=OF_GPUS, resources={"limits": {"nvidia.com/gpu": 2}})
    cluster = made["spec"]["rayClusterConfig"]
    [group] = cluster["workerGroupSpecs"]
    assert group["rayStartParams"]["num-gpus"] == "2"
    assert deployment(made)["ray_actor_options"]["num_gpus"] == 2
    assert group["template"]["spec"]["tolerations"]
    assert no_part_of_the_head(cluster)


@pytest.mark.parametrize(("there", "replicas"), [("8", 2), ("3", 1), ("2", 1)])
def test_no_worker_is_asked_for_that_has_no_gpu(service, world, there, replicas):
    world.nodes = [gpu_node(there)]
    made = service(runtime=OF_GPUS, resources={"limits": {"nvidia.com/gpu": 2}}, replicas=2)
    assert deployment(made)["autoscaling_config"]["max_replicas"] == replicas
    assert world.status().condition("GPUAvailable").status == ("True" if replicas == 2 else "False")


def test_what_workers_claim_is_what_ray_counts_and_a_template_of_the_revision(made, world):
    devices = [Device(CLASS, "n", f"gpu-{n}", "n", {f"{CLASS}/type": "gpu"}, {}) for n in range(4)]
    world.nodes = [gpu_node("0")]
    world.inventory = Inventory({CLASS: (f"device.driver == '{CLASS}'",)}, devices)
    children = made(runtime=OF_GPUS, accelerator={"deviceClassName": CLASS, "count": 2})
    stable = world.decide().stable
    [request] = children["ResourceClaimTemplate", stable]["spec"]["spec"]["devices"]["requests"]
    assert request["exactly"]["count"] == 2
    service = children["RayService", stable]
    cluster = service["spec"]["rayClusterConfig"]
    [group] = cluster["workerGroupSpecs"]
    worker = group["template"]["spec"]
    assert worker["resourceClaims"] == [
        {"name": "accelerator", "resourceClaimTemplateName": stable}
    ]
    assert worker["containers"][0]["resources"]["claims"] == [{"name": "accelerator"}]
    assert {each["key"] for each in worker["tolerations"]} == {"nvidia.com/gpu"}
    assert group["rayStartParams"]["num-gpus"] == "2"
    assert deployment(service)["ray_actor_options"]["num_gpus"] == 2
    assert deployment(service)["autoscaling_config"]["max_replicas"] == 2
    assert no_part_of_the_head(cluster)


def test_workers_are_who_our_services_select_and_the_head_is_not(service):
    cluster = service()["spec"]["rayClusterConfig"]
    [group] = cluster["workerGroupSpecs"]
    labels = group["template"]["metadata"]["labels"]
    head = cluster["headGroupSpec"]["template"]["metadata"]["labels"]
    assert {DETECTOR_LABEL, REVISION_LABEL, RAY_LABEL} <= labels.keys()
    assert RAY_LABEL in head
    assert not {DETECTOR_LABEL, REVISION_LABEL} & head.keys()
    assert "app.kubernetes.io/name" not in labels | head, "KubeRay's own Services go by it"


def test_no_probe_needs_what_the_image_has_not_and_no_worker_has_a_token(service):
    text = json.dumps(service())
    assert "wget" not in text
    cluster = service()["spec"]["rayClusterConfig"]
    [group] = cluster["workerGroupSpecs"]
    worker, head = group["template"]["spec"], cluster["headGroupSpec"]["template"]["spec"]
    assert worker["automountServiceAccountToken"] is False
    for pod in (worker, head):
        container = pod["containers"][0]
        assert all("httpGet" in container[probe] for probe in ("readinessProbe", "livenessProbe"))
        assert pod["securityContext"]["runAsNonRoot"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_a_redis_is_named_by_address_and_its_password_by_a_secret(made, world):
    children = made(runtime=ON_RAY | {"ray": {"redis": REDIS}})
    stable = world.decide().stable
    options = children["RayService", stable]["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"]
    assert options == {
        "redisAddress": "redis.shop.svc:6380",
        "redisPassword": {"valueFrom": {"secretKeyRef": {"name": "redis", "key": "word"}}},
    }
    assert ("PodDisruptionBudget", f"{stable}-head") not in children, "another head takes over"


def test_rays_ports_are_open_among_its_own_pods_and_to_kuberay(made, world):
    children = made(
        runtime=ON_RAY | {"ray": {"redis": REDIS}}, access={"networkPolicy": "Restricted"}
    )
    stable = world.decide().stable
    own = {"podSelector": {"matchLabels": {RAY_LABEL: stable}}}
    workers = children["NetworkPolicy", stable]["spec"]
    head = children["NetworkPolicy", f"{stable}-head"]["spec"]
    assert workers["ingress"] == [{"from": [own]}]
    assert workers["egress"] == [{"to": [own]}]
    among, kuberay = head["ingress"]
    assert among == {"from": [own]}
    assert kuberay["ports"] == [{"protocol": "TCP", "port": 8265}]
    assert {"protocol": "TCP", "port": 6380} in head["egress"][-1]["ports"]
    served = children["NetworkPolicy", "gate"]["spec"]["ingress"][0]["ports"]
    assert [each["port"] for each in served] == [8000, 8082], "nobody else reaches a port of Ray"


@pytest.mark.parametrize(
    ("address", "ports"),
    [
        ("redis.shop.svc", [6379]),
        ("rediss://redis.shop.svc", [6379]),
        ("[fd00::1]:6380", [6380]),
        ("rediss://redis.shop.svc:6380/", [6380]),
        ("redis://redis.shop.svc:6380/0", [6380]),
        ("one.shop.svc:6380,other.shop.svc:6381", [6380, 6381]),
    ],
)
def test_the_head_gets_out_to_its_redis_however_that_is_written(made, world, address, ports):
    children = made(
        runtime=ON_RAY | {"ray": {"redis": {"address": address}}},
        access={"networkPolicy": "Restricted"},
    )
    stable = world.decide().stable
    head = children["NetworkPolicy", f"{stable}-head"]
    opened = {each["port"] for each in head["spec"]["egress"][-1]["ports"]}
    assert opened >= set(ports)
    assert 6379 in ports or 6379 not in opened


def test_without_isolation_the_head_alone_is_isolated(made, world):
    children = made(access={"networkPolicy": "None"})
    names = [name for kind, name in children if kind == "NetworkPolicy"]
    assert names == [f"{world.decide().stable}-head"]


def test_budgets_count_from_below_as_a_ray_cluster_tells_nobody_its_size(made, world):
    children = made(replicas=3)
    head = children["PodDisruptionBudget", f"{world.decide().stable}-head"]["spec"]
    assert children["PodDisruptionBudget", "gate"]["spec"]["minAvailable"] == 2
    assert "maxUnavailable" not in children["PodDisruptionBudget", "gate"]["spec"]
    assert head["minAvailable"] == 1


def test_a_route_to_ray_says_when_requests_came_whatever_callers_say(made, world):
    header, value = "x-request-start", "t=%START_TIME(%s.%3f)%"
    world.settle()
    assert "headers" not in world.children["VirtualService", "gate"]["spec"]["http"][0]
    canary = {"replicas": 1, "weight": 10, "runtime": ON_RAY}
    children = made(runtime={"engine": "deployment"}, canary=canary)
    [rule] = children["VirtualService", "gate"]["spec"]["http"]
    assert rule["headers"] == {"request": {"set": {header: value}}}
    [worker] = children["RayService", world.decide().canary]["spec"]["rayClusterConfig"][
        "workerGroupSpecs"
    ]
    [container] = worker["template"]["spec"]["containers"]
    assert {"name": "YOLOSERVE_TRUST_REQUEST_START", "value": "true"} in container["env"]


def test_an_http_route_says_it_by_a_filter(made, world):
    world.gateway = True
    children = made(traffic={"provider": "gateway", "gateways": ["istio-system/api"]})
    [rule] = children["HTTPRoute", "gate"]["spec"]["rules"]
    [only] = rule["filters"]
    assert only["requestHeaderModifier"] == {
        "set": [{"name": "x-request-start", "value": "t=%START_TIME(%s.%3f)%"}]
    }


OF_REVISION = "__meta_kubernetes_pod_label_yolofleet_io_revision"


def scraped(monitor):
    """Return, by port, the relabelings that keep or drop pods."""
    return {
        endpoint["port"]: [
            (each["action"], each["sourceLabels"], each["regex"])
            for each in endpoint["relabelings"]
            if "action" in each
        ]
        for endpoint in monitor["spec"]["podMetricsEndpoints"]
    }


def test_each_worker_is_scraped_where_it_tells_its_own_counters(made, world):
    world.monitors = True
    children = made(access={"allowFrom": [{"ports": [], "namespaceSelector": {}}]})
    stable = world.decide().stable
    monitor = children["PodMonitor", "gate"]
    assert scraped(monitor) == {
        "http": [("drop", [OF_REVISION], stable)],
        "server-metrics": [("keep", [OF_REVISION], stable)],
    }
    for endpoint in monitor["spec"]["podMetricsEndpoints"]:
        told = [each.get("targetLabel") for each in endpoint["relabelings"]]
        assert told[-2:] == ["detector", "revision"]
    [group] = children["RayService", stable]["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    [container] = group["template"]["spec"]["containers"]
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert ports == {"http": 8000, "evidence": 8081, "server-metrics": 8082}
    assert {*ports.values()} <= RAY_TAKES | {EVIDENCE_PORT[1]}, "no side-car may have them"
    assert {"name": "YOLOSERVE_METRICS_PORT", "value": "8082"} in container["env"]
    annotations = group["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == "8082"
    served, *others = children["NetworkPolicy", "gate"]["spec"]["ingress"]
    assert [each["port"] for each in served["ports"]] == [8000, 8082], "to whoever may ask"
    assert "8081" not in str([served, *others]), "to nobody where no operator is known"


def test_metrics_that_are_not_open_are_on_no_port_of_ray(made, world):
    world.monitors = True
    children = made(access={"metricsOpen": False, "apiKeys": {"secretName": "keys"}})
    [group] = children["RayService", world.decide().stable]["spec"]["rayClusterConfig"][
        "workerGroupSpecs"
    ]
    pod = json.dumps(group["template"])
    assert "8082" not in pod
    assert "prometheus.io" not in pod
    assert not [kind for kind, _ in children if kind == "PodMonitor"]


def test_two_engines_at_once_are_each_scraped_at_their_own_port(made, world):
    world.monitors = True
    canary = {"replicas": 1, "runtime": ON_RAY}
    monitor = made(runtime={"engine": "deployment"}, canary=canary)["PodMonitor", "gate"]
    of_ray = world.decide().canary
    assert scraped(monitor) == {
        "http": [("drop", [OF_REVISION], of_ray)],
        "server-metrics": [("keep", [OF_REVISION], of_ray)],
    }


@given(
    st.dictionaries(
        st.sampled_from(["max_concurrent_queries", "num_replica", "x"]), st.just(1), min_size=1
    )
)
def test_no_name_that_serve_would_pass_over_can_be_written_or_read(unknown):
    with pytest.raises(ValidationError):
        Autoscaling(min_replicas=1, max_replicas=2, target_ongoing_requests=1, **unknown)
    assert ServeConfig.read(json.dumps(unknown)) is None


# read


def worker(name="w", ready="True", **metadata):
    conditions = [{"type": "Ready", "status": ready}]
    return {"metadata": {"name": name, **metadata}, "status": {"conditions": conditions}}


def seen(service, status, pods=(), created=MADE):
    metadata = service["metadata"] | {"creationTimestamp": created, "generation": 2}
    return ray_service.read(service | {"metadata": metadata, "status": status}, list(pods), NOW)


def told(
    *, endpoints=2, deployment="HEALTHY", application="RUNNING", message="", generation=2,
    head=("True", "HeadPodRunningAndReady", ""), reason="NonZeroServeEndpoints", active=True,
):  # fmt: skip
    current = {
        "rayClusterName": "gate-x",
        "rayClusterStatus": {
            "desiredWorkerReplicas": 2,
            "conditions": [
                {"type": "RayClusterProvisioned", "status": "True", "reason": "x"},
                {
                    "type": "HeadPodReady",
                    "status": head[0],
                    "reason": head[1],
                    "message": head[2],
                    "lastTransitionTime": MADE,
                },
            ],
        },
        "applicationStatuses": {
            "detector": {
                "status": application,
                "message": message,
                "serveDeploymentStatuses": {
                    "yoloserve": {"status": deployment, "message": message}
                },
            }
        },
    }
    ready = "True" if reason == "NonZeroServeEndpoints" else "False"
    return {
        "observedGeneration": generation,
        "numServeEndpoints": endpoints,
        "conditions": [{"type": "Ready", "status": ready, "reason": reason}],
        "activeServiceStatus": current if active else {},
        "pendingServiceStatus": {} if active else current,
    }


TWO = (worker("a"), worker("b"))


@pytest.mark.parametrize(
    ("status", "pods", "ready"),
    [
        (told(), TWO, 2),
        (told(endpoints=1), TWO, 1),  # every proxy is to have heard of it
        (told(), (worker("a"), worker("b", ready="False")), 1),  # known at once, KubeRay polls
        (told(), (worker("a"), worker("b", deletionTimestamp=MADE)), 1),
        (told(endpoints=3), (*TWO, worker("c")), 2),  # the third is on its way out
        (told(deployment="UNHEALTHY"), TWO, 2),  # who answers keeps its requests
        (told(endpoints=0, deployment="DEPLOY_FAILED", reason="Initializing", active=False), (), 0),
        ({}, TWO, 0),
    ],
)
def test_ready_is_who_answers_as_far_as_kuberay_has_seen_him(service, status, pods, ready):
    assert seen(service(), status, pods).ready == ready


@pytest.mark.parametrize(
    ("status", "settled"),
    [
        (told(), True),
        (told(deployment="UPDATING"), True),
        (told(generation=1), False),
        (told(deployment="UNHEALTHY"), False),
        (told(application="DEPLOY_FAILED"), False),
    ],
)
def test_nothing_is_released_on_what_ray_is_not_content_with(service, status, settled):
    assert seen(service(), status, TWO).settled is settled


def test_a_failed_application_says_its_last_line(service):
    status = told(
        endpoints=0, deployment="DEPLOY_FAILED", application="DEPLOY_FAILED", message=TRACEBACK,
        reason="Initializing", active=False,
    )  # fmt: skip
    found = seen(service(), status)
    assert found.failure.reason == "DeployFailed"
    assert found.failure.message == (
        "Ray cannot start it: yoloserve.errors.DigestMismatch: another digest"
    )
    assert found.hopeless == datetime(2030, 1, 1, 11, tzinfo=UTC)


@pytest.mark.parametrize(
    "status",
    [
        told(endpoints=0, deployment="DEPLOY_FAILED", reason="ZeroServeEndpoints"),  # it was ready
        told(endpoints=0, deployment="DEPLOY_FAILED", reason="ZeroServeEndpoints", active=False),
        told(endpoints=0, deployment="UNHEALTHY", reason="Initializing", active=False),
        told(endpoints=0, deployment="UPDATING", reason="Initializing", active=False),
    ],
)
def test_what_was_ever_ready_or_may_still_be_is_not_made_anew(service, status):
    assert seen(service(), status).hopeless is None


def test_nor_is_what_answers_whatever_is_said_of_it(service):
    status = told(deployment="DEPLOY_FAILED", reason="Initializing", active=False)
    assert seen(service(), status, TWO).hopeless is None


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (told(head=("False", "HeadPodNotFound", "Head Pod not found")), "HeadLost"),
        (
            told(
                head=("False", "ImagePullBackOff", "back-off"), reason="Initializing", active=False
            ),
            "HeadFailed",
        ),
        (
            told(head=("False", "ContainersNotReady", ""), reason="Initializing", active=False),
            None,
        ),
        (told(deployment="UNHEALTHY", message="a replica is ill"), "Unhealthy"),
        (told(), None),
    ],
)
def test_what_is_wrong_is_said_in_one_word(service, status, reason):
    found = seen(service(), status, TWO).failure
    assert (found.reason if found else None) == reason


def test_a_kuberay_that_says_nothing_is_given_a_minute(service):
    created = NOW - timedelta(seconds=20)
    young = seen(service(), {}, created=created.isoformat())
    assert young.failure is None
    assert young.look_at == created + timedelta(minutes=1)
    assert seen(service(), {}).failure.reason == "KubeRaySilent"


INITIALIZING = {
    "observedGeneration": 2,
    "conditions": [{"type": "Ready", "status": "False", "reason": "Initializing"}],
    "activeServiceStatus": {"rayClusterStatus": {"desiredCPU": "0", "head": {}}},
    "pendingServiceStatus": {
        "rayClusterName": "gate-x",
        "rayClusterStatus": {"desiredCPU": "0", "head": {}},
    },
}
"""All that KubeRay 1.5.1 says until Ray answers, whatever keeps the head from starting."""


def test_a_cluster_that_does_not_come_up_is_said_after_three_minutes_and_where_to_look(service):
    created = NOW - timedelta(minutes=2)
    young = seen(service(), INITIALIZING, created=created.isoformat())
    assert (young.failure, young.look_at) == (None, created + timedelta(minutes=3))
    old = seen(service(), INITIALIZING)
    assert old.failure.reason == "HeadFailed"
    assert "describe pods -l yolofleet.io/ray-cluster=gate-" in old.failure.message
    assert (old.look_at, old.hopeless) == (None, None)


@pytest.mark.parametrize(
    ("workers", "least", "most", "replicas"),
    [(2, 1, 4, 2), (2, 3, 4, 3), (2, 1, 1, 1), (0, 1, 4, 1)],
)
def test_of_rays_own_number_the_workers_tell_in_its_bounds(service, workers, least, most, replicas):
    made = service()
    bounds = Autoscaling(min_replicas=least, max_replicas=most, target_ongoing_requests=4)
    config = ServeConfig.read(made["spec"]["serveConfigV2"]).model_dump(exclude_none=True)
    config["applications"][0]["deployments"][0]["autoscaling_config"] = bounds.model_dump()
    spec = made["spec"] | {"serveConfigV2": json.dumps(config)}
    gone = (worker("c", deletionTimestamp=MADE), worker("d", "False"))
    gone[1]["status"]["phase"] = "Failed"  # its node put it out
    assert seen(made | {"spec": spec}, told(), (*TWO[:workers], *gone)).replicas == replicas


def test_how_many_workers_there_were_once_says_nothing(service):
    """KubeRay 1.5.1 writes the status of a RayService for other reasons alone."""
    made = service(autoscaling=SCALING, replicas=None)
    found = seen(made, told(endpoints=1), [worker()])
    assert (found.ready, found.replicas) == (1, 1)


SCALING = {"minReplicas": 1, "maxReplicas": 4, "inFlight": 3}


@pytest.mark.parametrize(
    "change", [{"autoscaling": SCALING, "replicas": None}, {"replicas": 5}, {"replicas": 1}]
)
def test_ray_sees_the_same_code_whatever_number_is_asked_for(service, change):
    """As Ray 2.60 counts it: `get_app_code_version`; other code replaces each replica."""

    def code(made):
        [application] = json.loads(made["spec"]["serveConfigV2"])["applications"]
        policies = [
            each["autoscaling_config"].get("policy")
            for each in application["deployments"]
            if isinstance(each.get("autoscaling_config"), dict)
        ]
        return application["import_path"], policies

    assert code(service(replicas=2)) == code(service(**change))


def test_ray_goes_on_from_what_runs_when_its_bounds_change(service):
    bounds = deployment(service(autoscaling=SCALING, replicas=None))["autoscaling_config"]
    assert "initial_replicas" not in bounds, "Serve would go there at any change"


UP = {"conditions": [{"type": "Ready", "status": "True"}]}


def active(**current):
    return UP | {"activeServiceStatus": {"rayClusterName": "gate-x"} | current}


@pytest.mark.parametrize(
    "status",
    [
        "up",
        {"numServeEndpoints": None},
        {"numServeEndpoints": "two"},
        {"numServeEndpoints": -3},
        {"observedGeneration": None},
        {"observedGeneration": "2"},
        {"conditions": "Ready"},
        {"conditions": [1, None, "Ready"]},
        UP | {"activeServiceStatus": "gate-x"},
        active(applicationStatuses=[]),
        active(applicationStatuses={"detector": "RUNNING"}),
        active(applicationStatuses={"detector": {"status": {}, "serveDeploymentStatuses": [1]}}),
        active(
            applicationStatuses={
                "detector": {"serveDeploymentStatuses": {"yoloserve": {"status": [1]}}}
            }
        ),
        active(rayClusterStatus="lost"),
        active(
            rayClusterStatus={
                "conditions": [{"type": "HeadPodReady", "status": "False", "reason": ["a"]}],
            }
        ),
    ],
)
def test_a_status_of_another_make_is_read_as_far_as_it_can_be(service, status):
    found = seen(service(), status, TWO)
    assert (found.ready, found.hopeless) == (0, None)
    assert found.replicas == 2


HUGE = "x" * 1_000_000 + "\nfine \x1b[31m red \u202e turned\x07" + "y" * 1000


@pytest.mark.parametrize(
    "status",
    [
        told(deployment="DEPLOY_FAILED", message=HUGE),
        told(head=("False", "HeadPodNotFound", HUGE.splitlines()[1])),
        told(head=("False", "\x1b" + "z" * 100_000, ""), reason="Initializing", active=False),
    ],
)
def test_words_of_ray_are_plain_and_short(service, status):
    message = seen(service(), status).failure.message
    assert len(message) < 1200
    assert message.isprintable()


@pytest.mark.parametrize("cluster", [None, {}, {"workerGroupSpecs": []}, {"workerGroupSpecs": [1]}])
def test_a_service_without_workers_has_no_pod_to_ask_and_is_no_fault(service, cluster):
    made = service()
    spec = made["spec"] | {"rayClusterConfig": cluster}
    assert ray_service.pod(made | {"spec": spec}) == {"spec": {}}


@pytest.mark.parametrize("config", ["{}", None, '{"applications": 3}'])
def test_a_config_that_nobody_can_read_leaves_what_runs(service, config):
    made = service()
    made = made | {"spec": made["spec"] | {"serveConfigV2": config}}
    status = told()
    assert (seen(made, status, TWO).ready, seen(made, status, TWO).replicas) == (2, 2)


def test_no_number_without_end_is_read():
    known = Autoscaling(min_replicas=1, max_replicas=2, target_ongoing_requests=4).model_dump_json()
    assert Autoscaling.model_validate_json(known)
    with pytest.raises(ValidationError):
        Autoscaling.model_validate_json(known.replace("4.0", "Infinity"))
