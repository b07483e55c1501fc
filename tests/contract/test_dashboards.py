"""The chart's dashboards without Grafana: whole, in their grid, in the language of Prometheus."""

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from dashboards import boards, panels, queries
from real_prometheus import promtool

BOARDS = boards()
VARIABLES = {"namespace": "shop", "detector": "gate", "__rate_interval": "5m"}


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
