"""The chart's rules, by Prometheus' own tool: each alert fires when it should, and only then."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from real_prometheus import promtool

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "charts" / "yolofleet" / "files" / "rules.yaml"
RUNBOOKS = ROOT / "docs" / "runbooks"
GROUPS: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"]
ALERTS: list[dict[str, Any]] = [r for g in GROUPS for r in g["rules"] if "alert" in r]

GATE = {"namespace": "shop", "detector": "gate"}
POD = GATE | {"revision": "gate-2", "pod": "gate-2-x"}


@dataclass(frozen=True, slots=True)
class Fires:
    """What an alert says when it fires: labels beside its own, and texts that have values."""

    labels: dict[str, str]
    summary: str
    severity: str = ""
    description: str = ""

    def expected(self, alert: str) -> dict[str, Any]:
        [rule] = [
            rule
            for rule in ALERTS
            if rule["alert"] == alert and self.severity in ("", rule["labels"]["severity"])
        ]
        texts = rule["annotations"] | {"summary": self.summary}
        if self.description:
            texts["description"] = self.description
        return {"exp_labels": rule["labels"] | self.labels, "exp_annotations": texts}


@dataclass(frozen=True, slots=True)
class Case:
    """Series, a sample a minute (or `every`), and what an alert says of them at a minute."""

    alert: str
    what: str
    at: str
    series: dict[str, str]
    fires: list[Fires] = field(default_factory=list)
    every: str = "1m"

    def test(self) -> dict[str, Any]:
        """Return it as promtool reads it."""
        return {
            "name": f"{self.alert}: {self.what}",
            "interval": self.every,
            "input_series": [{"series": s, "values": v} for s, v in self.series.items()],
            "alert_rule_test": [
                {
                    "alertname": self.alert,
                    "eval_time": self.at,
                    "exp_alerts": [each.expected(self.alert) for each in self.fires],
                }
            ],
        }


def of(name: str, labels: dict[str, str], **more: str) -> str:
    told = ",".join(f"{label}={json.dumps(value)}" for label, value in (labels | more).items())
    return f"{name}{{{told}}}"


def requests(outcome: str, source: str = "request") -> str:
    return of("yoloserve_requests_total", POD, outcome=outcome, source=source)


def inference(slow_from: int, to: int) -> dict[str, str]:
    """Return 480 calls a minute of 10 ms each, and of 15 ms from a minute on."""
    name, labels = "yoloserve_stage_duration_seconds", POD | {"stage": "inference"}
    return {
        of(f"{name}_count", labels): f"0+480x{to}",
        of(
            f"{name}_sum", labels
        ): f"0+4.8x{slow_from} {4.8 * slow_from + 7.2}+7.2x{to - slow_from}",
    }


def told(ready: str, desired: str, answered: str, stalled: str) -> dict[str, str]:
    """Return what the operator tells of GATE; tests/unit/test_metrics.py has when it tells so."""
    return {
        of("yolofleet_detector_ready", GATE, pod="operator-a"): ready,
        of("yolofleet_detector_replicas", GATE, pod="operator-a", state="desired"): desired,
        of("yolofleet_detector_answered_ratio", GATE, pod="operator-a"): answered,
        of("yolofleet_detector_stalled", GATE, pod="operator-a"): stalled,
    }


def release(age: str, hold: str, weight: str = "0x200") -> dict[str, str]:
    return {
        of("yolofleet_rollout_step_age_seconds", GATE, pod="operator-a"): age,
        of("yolofleet_rollout_step_hold_seconds", GATE, pod="operator-a"): hold,
        of("yolofleet_canary_weight", GATE, pod="operator-a"): weight,
    }


def lease(name: str, **pods: str) -> dict[str, str]:
    """Return what the operators say of a Lease, each of whether it leads."""
    led = {
        of("leader_election_master_status", OPERATOR | {"name": name}, pod=pod): values
        for pod, values in pods.items()
    }
    return led | {of("yolofleet_watch_deaf", OPERATOR, pod=pod): "0x15" for pod in pods}


SAYS = {"exported_namespace": "shop", "exported_pod": "gate-2-x"}
HOT = SAYS | {"namespace": "gpu-operator", "pod": "dcgm"}
OPERATOR = {"namespace": "platform"}
RECONCILES = OPERATOR | {"controller": "yolodetector", "pod": "operator-a", "job": "yolofleet"}
OTHER = RECONCILES | {"pod": "operator-b", "job": "south"}  # another release
QUEUE = RECONCILES | {"name": "yolodetector"}
IN_TIME = "platform: the operator does not get done with detectors in time"
BLIND = Fires(
    POD,
    "shop/gate-2-x did not see its own test picture",
    description="It refused requests, and was started anew if it did not see again."
    " Other pods of gate went on.",
)

THROTTLED = Fires(POD, "shop/gate-2-x: the GPU is hot, and inference takes 15ms")

CASES = [
    Case(
        "YoloDetectorMissesItsDeadline",
        "more than a third is late",
        "40m",
        {requests("ok"): "0+300x50", requests("deadline_exceeded"): "0+180x50"},
        [
            Fires(GATE, "shop/gate: 37.5% of requests are not answered in time", "page"),
            Fires(
                GATE, "shop/gate: 37.5% of requests were not answered in time for hours", "ticket"
            ),
        ],
    ),
    Case(
        "YoloDetectorMissesItsDeadline",
        "all is late for ten minutes, after hours in which nothing was",
        "182m",
        {
            requests("ok"): "0+600x170 102000x40",
            requests("deadline_exceeded"): "0x170 600+600x40",
        },
        [
            Fires(GATE, "shop/gate: 100% of requests are not answered in time", "page"),
            Fires(
                GATE, "shop/gate: 5.571% of requests were not answered in time for hours", "ticket"
            ),
        ],
    ),
    Case(
        "YoloDetectorMissesItsDeadline",
        "that is over",
        "190m",
        {
            requests("ok"): "0+600x170 102000x10 102600+600x40",
            requests("deadline_exceeded"): "0x170 600+600x10 6600x40",
        },
        [
            Fires(
                GATE, "shop/gate: 5.6% of requests were not answered in time for hours", "ticket"
            )
        ],
    ),
    Case(
        "YoloDetectorMissesItsDeadline",
        "a tenth fails for hours",
        "40m",
        {requests("ok"): "0+540x50", requests("internal"): "0+60x50"},
        [
            Fires(GATE, "shop/gate: 10% of requests are not answered in time", "page"),
            Fires(GATE, "shop/gate: 10% of requests were not answered in time for hours", "ticket"),
        ],
    ),
    Case(
        "YoloDetectorMissesItsDeadline",
        "two in a hundred are refused for hours",
        "40m",
        {requests("ok"): "0+588x50", requests("overloaded"): "0+12x50"},
        [Fires(GATE, "shop/gate: 2% of requests were not answered in time for hours", "ticket")],
    ),
    Case(
        "YoloDetectorMissesItsDeadline",
        "one in two hundred is within the budget",
        "40m",
        {requests("ok"): "0+597x50", requests("overloaded"): "0+3x50"},
    ),
    Case(
        "YoloDetectorMissesItsDeadline",
        "a request each 20 s, at night",
        "40m",
        {requests("ok"): "0+0x50", requests("internal"): "0+3x50"},
    ),
    Case(
        "YoloDetectorMissesItsDeadline",
        "what is the caller's, and what is no caller's",
        "40m",
        {
            requests("ok"): "0+480x50",
            **{
                requests(outcome): "0+480x50"
                for outcome in ("canceled", "over_quota", "invalid_image", "hurried")
            },
            requests("internal", source="shadow"): "0+480x50",
        },
    ),
    Case(
        "YoloDetectorNotReady",
        "none is ready",
        "20m",
        told("1x5 0x20", "2x25", "1x5 0x20", "0x25"),
        [Fires(GATE, "shop/gate: 0% of requests find a pod that answers")],
    ),
    Case(
        "YoloDetectorNotReady",
        "no accelerator is free, so that none is asked for",
        "20m",
        told("0x25", "0x25", "0x25", "1x25"),
        [Fires(GATE, "shop/gate: 0% of requests find a pod that answers")],
    ),
    Case(
        "YoloDetectorNotReady",
        "suspended, so that a canary with a tenth takes over no more",
        "20m",
        told("0x25", "3x25", "0.1x25", "0x25"),
        [Fires(GATE, "shop/gate: 10% of requests find a pod that answers")],
    ),
    Case(
        "YoloDetectorNotReady",
        "a canary answers all in the place of a dead revision",
        "20m",
        told("0x25", "4x25", "1x25", "0x25"),
    ),
    Case("YoloDetectorNotReady", "to zero", "20m", told("1x25", "0x25", "0x25", "0x25")),
    Case(
        "YoloDetectorNotReady",
        "suspended from its start: no requests are led anywhere",
        "20m",
        told("0x25", "2x25", "_x25", "0x25"),
    ),
    Case(
        "YoloDetectorStalled",
        "a release that cannot go on, while the last one serves",
        "30m",
        told("1x40", "4x40", "1x40", "0x5 1x40"),
        [
            Fires(
                GATE,
                "shop/gate is not as asked, and waits for somebody to put that right",
            )
        ],
    ),
    Case(
        "YoloDetectorStalled",
        "no accelerator is free: there is a page for that",
        "40m",
        told("0x45", "0x45", "0x45", "1x45"),
    ),
    Case(
        "YoloDetectorStalled",
        "somebody came in time",
        "30m",
        told("1x40", "4x40", "1x40", "1x10 0x40"),
    ),
    Case(
        "YoloDetectorBlind",
        "it saw something all the time, and sees nothing any more",
        "55m",
        {
            requests("ok"): "0+480x120",
            of("yoloserve_detections_total", POD, **{"class": "bus"}): "0+900x30 27000x60",
        },
        [Fires(GATE, "shop/gate has found nothing in any picture for 20 minutes")],
    ),
    Case(
        "YoloDetectorBlind",
        "a new revision has seen nothing from its start",
        "55m",
        {
            requests("ok"): "0+480x30 _x60",
            of("yoloserve_detections_total", POD, **{"class": "bus"}): "0+900x30 _x60",
            of(
                "yoloserve_requests_total",
                POD | {"pod": "gate-3-x"},
                outcome="ok",
                source="request",
            ): "_x30 0+480x60",
        },
        [Fires(GATE, "shop/gate has found nothing in any picture for 20 minutes")],
    ),
    Case(
        "YoloDetectorBlind",
        "a yard that is empty each night",
        "110m",
        {
            requests("ok"): "0+480x130",
            of("yoloserve_detections_total", POD, **{"class": "bus"}): "0x40 0+900x40 36000x60",
        },
    ),
    Case(
        "YoloDetectorProbeBlind",
        "it left between two scrapes, and the new process sees",
        "30m",
        {
            of("yoloserve_blind", POD): "0x40",
            of("yolofleet_pod_blind_end_timestamp_seconds", POD): "_x10 590x30",
        },
        [BLIND],
    ),
    Case(
        "YoloDetectorProbeBlind",
        "it saw again, and a scrape came in between",
        "10m",
        {of("yoloserve_blind", POD): "0x4 1 0x10"},
        [BLIND],
    ),
    Case(
        "YoloDetectorProbeBlind",
        "that was hours ago",
        "75m",
        {
            of("yoloserve_blind", POD): "0x4 1 0x90",
            of("yolofleet_pod_blind_end_timestamp_seconds", POD): "_x10 590x90",
        },
    ),
    Case(
        "YoloDetectorGpuThrottled",
        "hot, and slower by half",
        "62m",
        inference(35, 70) | {of("DCGM_FI_DEV_THERMAL_VIOLATION", HOT): "0x35 5000+5000x30"},
        [THROTTLED],
    ),
    *(
        Case(
            "YoloDetectorGpuThrottled",
            f"hot, and slower by half, {words}",
            "62m",
            inference(35, 70) | {of("DCGM_FI_DEV_THERMAL_VIOLATION", said): "0x35 5000+5000x30"},
            fires,
        )
        for words, said, fires in (
            ("told by its own labels", POD, [THROTTLED]),
            ("says a pod of another namespace", SAYS | {"namespace": "evil", "pod": "own-1"}, []),
        )
    ),
    Case(
        "YoloDetectorGpuThrottled",
        "slower for another reason",
        "62m",
        inference(35, 70) | {of("DCGM_FI_DEV_THERMAL_VIOLATION", HOT): "7x120"},
    ),
    Case(
        "YoloDetectorGpuThrottled",
        "hot, and as fast as ever",
        "50m",
        inference(0, 60) | {of("DCGM_FI_DEV_THERMAL_VIOLATION", HOT): "0x35 5000+5000x30"},
    ),
    Case(
        "YoloDetectorAtMaxReplicas",
        "it would need more",
        "20m",
        {of("yolofleet_autoscaling_at_max", GATE, pod="operator-a"): "1x30"},
        [Fires(GATE, "shop/gate would need more replicas than maxReplicas")],
    ),
    Case(
        "YoloDetectorAtMaxReplicas",
        "for a moment",
        "20m",
        {of("yolofleet_autoscaling_at_max", GATE, pod="operator-a"): "0x8 1x4 0x30"},
    ),
    Case(
        "YoloDetectorMetricLost",
        "held",
        "15m",
        {of("yolofleet_autoscaling_held", GATE, pod="operator-a"): "1x30"},
        [Fires(GATE, "shop/gate does not scale: a metric is lost")],
    ),
    Case(
        "YoloDetectorMetricLost",
        "it scales",
        "15m",
        {of("yolofleet_autoscaling_held", GATE, pod="operator-a"): "0x30"},
    ),
    Case(
        "YoloDetectorCanaryStuck",
        "a step of five minutes lasts for 40",
        "40m",
        release("0+60x50", "300x50"),
        [Fires(GATE, "shop/gate: the release has come no further for 40m 0s")],
    ),
    Case(
        "YoloDetectorCanaryStuck",
        "pods take ten minutes to start for the next step, after an hour of those before",
        "75m",
        release("0+60x60 3600+60x10 0x10", "300x90", "5x60 5x10 25x20"),
    ),
    Case("YoloDetectorCanaryStuck", "it waits for a person", "90m", release("0+60x99", "_x99")),
    Case(
        "YoloDetectorCanaryStuck",
        "a step of 20 minutes takes twice as long",
        "59m",
        release("0+60x60", "1200x60"),
    ),
    Case(
        "YoloDetectorCanaryStuck",
        "no steps, and the new revision never gets ready",
        "90m",
        release("0+60x99", "0x99"),
        [Fires(GATE, "shop/gate: the release has come no further for 1h 30m 0s")],
    ),
    Case(
        "YoloDetectorCanaryStuck",
        "no steps, and a big model that takes an hour",
        "61m",
        release("0+60x99", "0x99"),
    ),
    Case(
        "YoloDetectorCanaryStuck",
        "replicas are swapped one by one, each of which takes half an hour",
        "110m",
        release("0+60x120", "0x120", "0x30 16x30 33x30 50x30"),
    ),
    Case(
        "YoloDetectorCanaryStuck",
        "of six replicas that are swapped the third never gets ready",
        "150m",
        release("0+60x160", "0x160", "0x10 16x10 33x150"),
        [Fires(GATE, "shop/gate: the release has come no further for 2h 30m 0s")],
    ),
    Case(
        "YoloFleetNoLeader",
        "two wait, and none leads",
        "10m",
        lease("yolofleet", a="1x5 0x10", b="0x15"),
        [Fires(OPERATOR | {"name": "yolofleet"}, "yolofleet: no replica of the operator leads")],
    ),
    Case(
        "YoloFleetNoLeader",
        "another took over",
        "10m",
        lease("yolofleet", a="1x5 0x10", b="0x5 1x10"),
    ),
    Case(
        "YoloFleetNoLeader",
        "of two releases the other one has none, and somebody else's operators are nobody's matter",
        "10m",
        lease("yolofleet", a="1x15")
        | lease("south", c="0x15", d="0x15")
        | {of("leader_election_master_status", OPERATOR | {"name": "theirs"}, pod="e"): "0x15"},
        [Fires(OPERATOR | {"name": "south"}, "south: no replica of the operator leads")],
    ),
    Case(
        "YoloFleetNoLeader",
        "nobody scrapes it",
        "10m",
        {},
        [Fires({"name": "yolofleet"}, "yolofleet: no replica of the operator leads")],
    ),
    Case(
        "YoloFleetReconcileErrors",
        "half of them fail",
        "30m",
        {
            of("controller_runtime_reconcile_total", RECONCILES, result="success"): "0+30x40",
            of("controller_runtime_reconcile_total", RECONCILES, result="error"): "0+30x40",
            of("controller_runtime_reconcile_errors_total", RECONCILES): "0+30x40",
            of("controller_runtime_reconcile_total", OTHER, result="success"): "0+9000x40",
            of("controller_runtime_reconcile_errors_total", OTHER): "0x40",
        },
        [
            Fires(
                OPERATOR | {"job": "yolofleet"},
                "platform: more than a tenth of the operator's reconciles fail",
                description="500m a second. The log names detectors and reasons.",
            )
        ],
    ),
    Case(
        "YoloFleetReconcileErrors",
        "a conflict now and then",
        "30m",
        {
            of("controller_runtime_reconcile_total", RECONCILES, result="success"): "0+30x40",
            of("controller_runtime_reconcile_total", RECONCILES, result="error"): "0+1x40",
            of("controller_runtime_reconcile_errors_total", RECONCILES): "0+1x40",
        },
    ),
    Case(
        "YoloFleetQueueStuck",
        "one detector hangs for ever: two minutes of each seven",
        "90m",
        {
            of("controller_runtime_reconcile_timeouts_total", RECONCILES): " ".join(
                f"{n}x6" for n in range(20)
            )
        },
        [Fires(OPERATOR | {"job": "yolofleet"}, IN_TIME)],
    ),
    Case(
        "YoloFleetQueueStuck",
        "a slow quarter of an hour",
        "60m",
        {of("controller_runtime_reconcile_timeouts_total", RECONCILES): "0x30 1x5 2x5 3x60"},
    ),
    *(
        Case(
            "YoloFleetQueueStuck",
            f"{more} in a quarter of an hour, after five of long ago, by scrapes each {every} s",
            "55m",
            {
                of("controller_runtime_reconcile_timeouts_total", RECONCILES): " ".join(
                    f"{5 + n}x{minutes * 60 // every - 1}"
                    for n, minutes in enumerate([30, *[15 // more] * (more - 1), 60])
                )
            },
            [Fires(OPERATOR | {"job": "yolofleet"}, IN_TIME)] if more > 3 else [],
            every=f"{every}s",
        )
        for every in (15, 30, 60)
        for more in (3, 4)
    ),
    Case(
        "YoloFleetQueueStuck",
        "most wait for minutes",
        "30m",
        {
            of("workqueue_queue_duration_seconds_bucket", QUEUE, le=le): f"0+{n}x40"
            for le, n in {"1": 10, "60": 20, "300": 60, "+Inf": 60}.items()
        },
        [Fires(OPERATOR | {"job": "yolofleet"}, IN_TIME)],
    ),
    Case(
        "YoloFleetQueueStuck",
        "much to do, and soon done",
        "30m",
        {
            of("workqueue_queue_duration_seconds_bucket", QUEUE, le=le): f"0+{n}x40"
            for le, n in {"1": 590, "60": 600, "300": 600, "+Inf": 600}.items()
        },
    ),
    Case(
        "YoloFleetWatchSilent",
        "a list found what no watch told, and liveness ended the process a minute later",
        "10m",
        {of("yolofleet_watch_deaf", {"pod": "operator-a"}): "0x4 1 _ 0x20"},
        [
            Fires(
                {"pod": "operator-a"},
                "operator-a was not told of changes: a watch was open and deaf, or it may not read",
            )
        ],
    ),
    Case(
        "YoloFleetWatchSilent",
        "that is over",
        "40m",
        {of("yolofleet_watch_deaf", {"pod": "operator-a"}): "0x4 1 _ 0x40"},
    ),
]  # fmt: skip


def test_promtool_finds_nothing_to_complain_about() -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    file = tmp_path / "cases.yaml"
    tests = [case.test() for case in CASES]
    told = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "group_eval_order": [group["name"] for group in GROUPS],  # else by chance
        "tests": tests,
    }
    file.write_text(json.dumps(told))
    done = promtool("test", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    alerts = {rule["alert"] for rule in ALERTS}
    assert {case.alert for case in CASES if case.fires} == alerts
    assert {case.alert for case in CASES if not case.fires} == alerts


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_urgent_it_is_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert {"summary", "description", "runbook_url"} <= set(rule["annotations"])
    page = RUNBOOKS / rule["annotations"]["runbook_url"].rpartition("/docs/runbooks/")[2]
    text = page.read_text()
    assert text.startswith(f"# {rule['alert']}\n")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings == ["What it means", "Where to look", "What to do"]


def test_the_guide_lists_the_alerts_and_how_urgent_they_are() -> None:
    guide = (ROOT / "docs" / "guides" / "monitoring.md").read_text()
    rows = re.findall(r"^\| (?:\[(\w+)\]\(\S+\) )?\| (page|ticket) \|", guide, re.MULTILINE)
    listed, last = set(), ""
    for name, severity in rows:
        last = name or last  # a row without a name is of the alert above
        listed.add((last, severity))
    assert listed == {(rule["alert"], rule["labels"]["severity"]) for rule in ALERTS}


def test_what_prometheus_adapter_would_ask_is_in_the_language_of_prometheus(tmp_path: Path) -> None:
    given = yaml.safe_load(RULES.with_name("prometheus-adapter-rules.yaml").read_text())["rules"]
    asked = []
    for rule in given:
        series = rule["seriesQuery"].partition("{")[0]
        text = rule["metricsQuery"].replace("<<.Series>>", series).replace("<<.GroupBy>>", "pod")
        text = text.replace("<<.LabelMatchers>>", 'namespace="shop",pod=~"a|b"')
        asked += [
            {"record": f"{series}:asked", "expr": each} for each in (text, rule["seriesQuery"])
        ]
    file = tmp_path / "adapter.yaml"
    file.write_text(json.dumps({"groups": [{"name": "adapter", "rules": asked}]}))
    done = promtool("check", "rules", "--lint=none", file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "<<" not in str(asked)


def test_no_runbook_is_of_an_alert_that_is_gone() -> None:
    assert {page.stem for page in RUNBOOKS.glob("*.md")} == {rule["alert"] for rule in ALERTS}
