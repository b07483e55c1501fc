"""What KEDA has Prometheus asked for, by Prometheus' own tool: the number that it comes to."""

import json
from pathlib import Path
from typing import Any

import pytest

from real_prometheus import promtool
from yolofleet.api.autoscaling import Autoscaling
from yolofleet.plan.defaults import GpuSeries
from yolofleet.plan.keda import questions

STABLE, CANARY, OTHER = "gate-0a1b2c3d", "gate-4e5f6a7b", "gate-east-0a1b2c3d"
ASKED = Autoscaling(max_replicas=9, load=70, in_flight=4)
CAPACITY = "yoloserve_capacity_requests_per_second"


def of(name: str, revision: str, **labels: str) -> str:
    """Return the series of a pod of `revision`."""
    told = labels | {"namespace": "shop", "pod": f"{revision}-6d5f7c8b9-x2x4z"}
    return f"{name}{{{','.join(f'{label}={json.dumps(value)}' for label, value in told.items())}}}"


def offered(revision: str, a_minute: int, outcome: str = "ok", source: str = "request") -> Any:
    series = of("yoloserve_requests_total", revision, outcome=outcome, source=source)
    return {series: f"0+{a_minute}x10"}


def twice(series: dict[str, str]) -> dict[str, str]:
    """Return the same as another job scrapes them, that goes by the annotations of pods."""
    return {name.replace("{", '{job="kubernetes-pods",'): told for name, told in series.items()}


SERIES = {
    **offered(STABLE, 600),
    **offered(STABLE, 300, "overloaded"),
    **offered(CANARY, 300),
    **offered(CANARY, 6000, source="shadow"),
    **offered(STABLE, 6000, "invalid"),
    **offered(OTHER, 6000),
    of(CAPACITY, STABLE): "10x10",
    of(CAPACITY, CANARY): "40x10",
    of(CAPACITY, OTHER): "90x10",
    of("yoloserve_inflight_requests", STABLE): "3x10",
    of("yoloserve_inflight_requests", CANARY): "5x10",
    of("yoloserve_inflight_requests", OTHER): "7x10",
}


@pytest.mark.parametrize(
    ("name", "series", "comes_to"),
    [
        # 20 a second in all, of which one of the stable revision answers 10: two replicas' worth
        ("load", SERIES, 200.0),
        ("in-flight", SERIES, 8.0),
        # each pod is scraped by two jobs
        ("load", SERIES | twice(SERIES), 200.0),
        ("in-flight", SERIES | twice(SERIES), 8.0),
        # what none of these pods knows yet is no answer, and no 0
        ("load", SERIES | {of(CAPACITY, STABLE): "Inf" + " Inf" * 9}, None),
        ("load", {}, None),
        ("in-flight", {}, None),
    ],
)
def test_the_load_of_all_pods_is_measured_by_what_one_of_the_stable_revision_can_do(
    tmp_path: Path, name: str, series: dict[str, str], comes_to: float | None
) -> None:
    asked = {each.name: each for each in questions(ASKED, "shop", "gate", STABLE, GpuSeries())}
    samples = [] if comes_to is None else [{"labels": "{}", "value": comes_to}]
    case = {
        "interval": "1m",
        "input_series": [{"series": one, "values": values} for one, values in series.items()],
        "promql_expr_test": [
            {"expr": asked[name].query, "eval_time": "5m", "exp_samples": samples}
        ],
    }
    file = tmp_path / "queries.yaml"
    file.write_text(json.dumps({"evaluation_interval": "1m", "tests": [case]}))
    done = promtool("test", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr
