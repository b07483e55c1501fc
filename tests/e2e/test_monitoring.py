"""A real Prometheus in the cluster, set up by the guide's own lines; `make test-all` alone."""

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from cluster import images, prometheus
from cluster.paths import tools
from dashboards import queries
from demo_cluster.detector import Detector
from demo_cluster.errors import NotYet
from demo_cluster.installation import Installation
from demo_cluster.kube import Kubectl, Manifest
from demo_cluster.load import Load, Target, wait_until_served
from demo_cluster.waiting import eventually

pytestmark = pytest.mark.nightly

OF_A_GPU = "DCGM_"
"""What only NVIDIA's exporter tells, and so a node with a GPU; tests/operator plays it."""


def fleet_of(routed: Callable[[str], Manifest]) -> dict[str, Manifest]:
    return {}  # it runs the stub engine, whose image takes a while to build


@pytest.fixture(scope="module")
def asked(installation: Installation) -> Callable[..., Any]:
    """`asked(api, **form)` is what the Prometheus of the cluster answers."""
    prometheus.install()
    headers = {"Host": prometheus.HOST}

    def ask(api: str, **form: str) -> Any:
        address = f"{tools().ingress_url}/api/v1/{api}?{urllib.parse.urlencode(form)}"
        try:
            with urllib.request.urlopen(
                urllib.request.Request(address, headers=headers), timeout=30
            ) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise NotYet(f"{error.code}: {error.read().decode()}") from None

    return ask


@pytest.fixture(scope="module")
def watched(asked: Any, make: Any, routed: Any) -> Iterator[Detector]:
    """One that is scaled by its load and at a step of a release."""
    env = [{"name": "YOLOSTUB_SERVICE_MS", "value": "20"}]
    detector = make(
        "watched",
        runtime={"image": images.build_and_load_upon(images.STUB)},
        inference={"deadline": "2s"},
        resources={"requests": {"cpu": "20m", "memory": "96Mi"}},
        podTemplate={"spec": {"containers": [{"name": "yoloserve", "env": env}]}},
        traffic={**routed("watched"), "retries": 0},
        autoscaling={"minReplicas": 1, "maxReplicas": 2, "load": 70, "provider": "builtin"},
        rollout={"strategy": "Canary", "steps": [{"weight": 20, "hold": "1h"}]},
    )
    detector.wait_ready()
    yield detector
    detector.leave()


def test_it_scrapes_by_the_guide_s_lines_and_each_panel_shows_something_under_load(
    watched: Detector,
    asked: Callable[..., Any],
    target: Callable[[str], Target],
    images: Any,
    kubectl: Kubectl,
) -> None:
    def both_jobs() -> None:
        up = {(each["labels"]["job"], each["health"]) for each in asked("targets")["activeTargets"]}
        if up != {("yolofleet-detectors", "up"), ("yolofleet-operator", "up")}:
            raise NotYet(str(up))

    eventually("targets of both jobs, all of them up", both_jobs, within_s=300)
    variables = {"detector": watched.name, "namespace": kubectl.namespace, "__rate_interval": "1m"}
    queried = [each.filled(variables) for each in queries() if OF_A_GPU not in each.text]

    def nothing_is_empty() -> None:
        if empty := [text for text in queried if not shows(asked("query", query=text)["result"])]:
            raise NotYet(f"{len(empty)} of {len(queried)}: {empty}")

    data = [image.data for image in images]
    wait_until_served(target("watched"), data, within_s=300)
    with Load(target("watched"), data, per_second=20):
        watched.patch({"model": {"uri": "demo://shapes-v2"}})
        watched.wait_weight(20)
        eventually("data for each panel", nothing_is_empty, within_s=600, every_s=5)
    assert len(queried) > 70


def test_it_has_taken_the_chart_s_rules(asked: Callable[..., Any]) -> None:
    rules = [
        rule
        for group in yaml.safe_load(prometheus.RULES.read_text())["groups"]
        for rule in group["rules"]
    ]

    def evaluated() -> list[Manifest]:
        found = [rule for group in asked("rules")["groups"] for rule in group["rules"]]
        if health := {each["health"] for each in found} - {"ok"}:
            raise NotYet(str(health))
        return found

    found = eventually("all rules to be evaluated", evaluated, within_s=300)
    names = sorted(rule.get("record") or rule["alert"] for rule in rules)
    assert sorted(each["name"] for each in found) == names
    [leaderless] = [each for each in found if each["name"] == "YoloFleetNoLeader"]
    assert leaderless["alerts"] == [], "an operator leads, and Prometheus sees it"


def shows(vector: list[dict[str, Any]]) -> bool:
    return any(math.isfinite(float(series["value"][1])) for series in vector)
