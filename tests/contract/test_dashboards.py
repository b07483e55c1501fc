"""The chart's dashboards without Grafana: whole, in their grid, in the language of Prometheus."""

import json
import re
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from dashboards import boards, panels, queries
from real_prometheus import promtool

BOARDS = boards()
VARIABLES = {"namespace": "shop", "detector": "gate", "__rate_interval": "5m"}
GATE = {"namespace": "shop", "detector": "gate"}


def of(name: str, labels: dict[str, str], **more: str) -> str:
    told = ",".join(f"{label}={json.dumps(value)}" for label, value in (labels | more).items())
    return f"{name}{{{told}}}"


@dataclass(frozen=True, slots=True)
class Case:
    """Series, a sample each 15 s that stays, and what a query of a panel shows of them.

    asks: a metric of that query, where its panel asks several.
    """

    board: str
    panel: str
    asks: str
    what: str
    series: dict[str, float]
    shows: dict[str, float]

    def test(self) -> dict[str, Any]:
        """Return it as promtool reads it."""
        [query] = [
            query
            for query in queries()
            if (query.board, query.panel) == (self.board, self.panel) and self.asks in query.text
        ]
        shown = [{"labels": labels, "value": value} for labels, value in self.shows.items()]
        return asked(
            f"{self.board}, {self.panel}: {self.what}",
            self.series,
            {query.filled(VARIABLES): shown},
        )


def asked(what: str, series: dict[str, float], shown: dict[str, Any]) -> dict[str, Any]:
    """Return the test that these queries show that after ten minutes."""
    return {
        "name": what,
        "interval": "15s",
        "input_series": [{"series": s, "values": f"{value}x60"} for s, value in series.items()],
        "promql_expr_test": [
            {"expr": text, "eval_time": "10m", "exp_samples": samples}
            for text, samples in shown.items()
        ],
    }


def check(folder: Path, *tests: dict[str, Any]) -> None:
    file = folder / "cases.yaml"
    file.write_text(json.dumps({"rule_files": [], "tests": tests}))
    done = promtool("test", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


IN_THE_DARK = {
    of("yoloserve_load_ratio", GATE, revision="gate-1", pod="gate-1-x"): 1.0,
    of("yoloserve_load_ratio", GATE, revision="gate-1", pod="gate-1-y"): 0.8,
    of("yoloserve_load_ratio", GATE, revision="gate-2", pod="gate-2-x"): 0,
    of("yoloserve_load_ratio", GATE, revision="gate-2", pod="gate-2-y"): 0,
}
"""Of a release that is judged before it answers anything: a whole set of pods without requests."""


def two_releases(name: str, north: float, south: float, **labels: str) -> dict[str, float]:
    """Return what the operators of two releases tell, each of which has a second replica."""
    told = {"a": north, "b": north, "c": south, "d": south}
    return {
        of(name, labels, namespace="platform", job=job, instance=instance): told[instance]
        for job, instances in (("north", "ab"), ("south", "cd"))
        for instance in instances
    }


WORKERS = "controller_runtime_max_concurrent_reconciles"
CASES = [
    *(
        Case(board, panel, "yoloserve_load_ratio", "a release is in the dark", IN_THE_DARK, shows)
        for board, panel, shows in (
            ("fleet", "Every detector", {of("", GATE): 0.9}),
            ("fleet", "Load, by detector", {of("", GATE): 0.9}),
            ("detector", "Load", {"{}": 0.9}),
        )
    ),
    Case(
        "fleet",
        "Conditions",
        "yolofleet_detector_condition",
        "of two releases",
        two_releases("yolofleet_detector_condition", 3, 5, type="Ready", status="True"),
        {'{type="Ready"}': 8},
    ),
    Case(
        "operator",
        "Busy workers",
        WORKERS,
        "of two releases",
        two_releases(WORKERS, 4, 8, controller="yolodetector"),
        {"{}": 12},
    ),
    Case(
        "operator",
        "Objects",
        "yolofleet_children",
        "of two releases",
        two_releases("yolofleet_children", 10, 20, kind="Service")
        | two_releases("yolofleet_children", 1, 2, kind="Deployment"),
        {"{}": 33},
    ),
    Case(
        "operator",
        "Objects, by kind",
        "yolofleet_children",
        "of two releases",
        two_releases("yolofleet_children", 10, 20, kind="Service"),
        {'{kind="Service"}': 30},
    ),
]


@pytest.fixture(params=BOARDS)
def board(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = BOARDS[request.param]
    return found


def test_there_are_three_with_addresses_that_stay() -> None:
    assert {board["uid"] for board in BOARDS.values()} == {
        "yolofleet-fleet",
        "yolofleet-detector",
        "yolofleet-operator",
    }
    assert all(board["uid"] == f"yolofleet-{name}" for name, board in BOARDS.items())


def test_all_of_it_asks_the_prometheus_that_the_reader_chose(board: dict[str, Any]) -> None:
    first, *others = board["templating"]["list"]
    assert (first["name"], first["type"], first["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    asking = [*others, *panels(board), *(t for p in panels(board) for t in p["targets"])]
    assert {each["datasource"]["uid"] for each in asking} == {"${datasource}"}


def test_a_panel_says_what_it_shows_and_in_what(board: dict[str, Any]) -> None:
    for panel in panels(board):
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        several = panel["type"] == "timeseries"
        assert all(bool(target["legendFormat"]) is several for target in panel["targets"])
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    titles = [panel["title"] for panel in panels(board)]
    assert len(set(titles)) == len(titles)


def test_panels_fit_the_grid_and_none_lies_on_another(board: dict[str, Any]) -> None:
    places = [panel["gridPos"] for panel in board["panels"]]
    assert all(at["x"] >= 0 and at["x"] + at["w"] <= 24 and at["h"] > 0 for at in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)


def test_promtool_reads_each_query(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": query.filled(VARIABLES)}
        for number, query in enumerate(queries())
    ]
    file = tmp_path / "panels.yaml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    done = promtool("check", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout


def test_panels_show_what_is_so(tmp_path: Path) -> None:
    check(tmp_path, *(case.test() for case in CASES))


def test_where_nothing_happens_no_panel_shows_a_share_of_nothing(tmp_path: Path) -> None:
    """0 / 0 is NaN: it stands as such in a table and as a number, and topk has a place for it."""
    texts = {query.filled(VARIABLES) for query in queries()}
    named = r"\b(?:yolo|workqueue|controller|rest)\w*_\w+"
    names = {name for text in texts for name in re.findall(named, text)}
    labels = GATE | {"revision": "gate-1", "pod": "gate-1-x", "instance": "a", "status": "True"}
    labels |= {"controller": "yolodetector", "source": "request", "state": "ready"}
    series = {
        of(name, labels, outcome=outcome, le=le): 5.0
        for name in sorted(names)
        for outcome in ("ok", "overloaded")
        for le in ("1", "+Inf")
    }
    never = {f"({text}) != ({text})": [] for text in sorted(texts)}  # NaN alone is not itself
    check(tmp_path, asked("idle", series, never))
