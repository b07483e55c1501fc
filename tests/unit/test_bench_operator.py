"""The operator's benchmark: what it reads from the audit log, and what it calls met or missed."""

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from bench.operator.audit import Audit, Write, by_namespace, last_effects, repairs
from bench.operator.contenders import CONTENDERS, without_knative
from bench.operator.report import COMPARED, TARGETS, Target, missed, side_by_side, table
from bench.rounds import medians

OPERATOR = "yolofleet-operator"


def a_write(at: float, name: str = "d00001", resource: str = "services", **parts: Any) -> Write:
    told = {"took": 0.01, "user": OPERATOR, "verb": "patch", "subresource": "", "code": 200}
    return Write(at=at, namespace="n", name=name, resource=resource, **told | parts)


def an_edit(at: float, name: str = "d00001") -> Write:
    return a_write(at, name, "yolodetectors", user="admin")


def test_the_last_child_before_a_silence_ends_a_change() -> None:
    writes = [
        a_write(0.9),
        a_write(1.1, "d00001-aaaa"),
        a_write(1.3, "d00001"),
        a_write(1.4, resource="yolodetectors", subresource="status"),
        a_write(1.5, "d00002"),
        a_write(1.6, code=409),
        a_write(5.0),
    ]
    assert list(last_effects([an_edit(1.0)], writes)) == pytest.approx([0.3])


def test_an_effect_belongs_to_the_latest_change_before_it() -> None:
    causes = [an_edit(1.0), an_edit(2.0)]
    assert sorted(last_effects(causes, [a_write(1.2), a_write(2.5)])) == pytest.approx([0.2, 0.5])
    assert list(last_effects(causes, [a_write(2.5)])) == pytest.approx([0.5]), "the first had none"


def test_a_repair_is_the_next_write_of_the_same_object() -> None:
    harm = a_write(1.0, user="admin")
    writes = [a_write(0.5), a_write(1.1, "d00002"), a_write(1.2), a_write(1.3)]
    assert list(repairs([harm], writes)) == pytest.approx([0.2])


def test_the_log_is_read_on_from_where_it_ended(tmp_path: Path) -> None:
    audit = Audit(tmp_path)
    line = {
        "user": {"username": OPERATOR},
        "verb": "patch",
        "objectRef": {"resource": "services", "namespace": "n", "name": "d00001"},
        "responseStatus": {"code": 201},
        "requestReceivedTimestamp": "2030-01-01T00:00:00.000000Z",
        "stageTimestamp": "2030-01-01T00:00:00.250000Z",
    }
    log = tmp_path / "audit.log"
    log.write_bytes(orjson.dumps(line) + b"\n" + orjson.dumps(line)[:20])
    [write] = audit.read()
    assert write.of_child
    assert write.took == pytest.approx(0.25)
    log.write_bytes(orjson.dumps(line) + b"\n" + orjson.dumps(line) + b"\n")
    assert len(audit.read()) == 2


@pytest.mark.parametrize(
    ("target", "numbers", "met"),
    [
        (Target("t", "x", 5), {"x": 5.0}, True),
        (Target("t", "x", 5), {"x": 5.1}, False),
        (Target("t", "x", 5, at_least=True), {"x": 5.1}, True),
        (Target("t", "x", 5, "ms", scale=1000), {"x": 0.006}, False),
        (Target("t", "x", lambda n: n["bound"]), {"x": 2.0, "bound": 3.0}, True),
        (Target("t", "x", 5, of_many=True), {"x": 9.0, "size": 10}, None),
        (Target("t", "x", 5), {}, None),
        (Target("t", "x", 5), {"x": float("nan")}, False),
    ],
)
def test_a_target_is_met_missed_or_not_measured(
    target: Target, numbers: dict[str, float], met: bool | None
) -> None:
    assert target.met(numbers) is met


def test_the_table_names_the_sizes_at_which_a_target_was_missed() -> None:
    results = {10: {"size": 10.0, "rss_mib": 80.0, "rss_bound_mib": 90.0, "idle_writes": 0.0}}
    results[1000] = results[10] | {"rss_mib": 500.0, "size": 1000.0}
    rows = table(results).splitlines()
    [memory] = [row for row in rows if row.startswith("| memory when idle")]
    assert memory == "| memory when idle | 80 MiB | 500 MiB | ≤ 400 MiB | missed at 1,000 |"
    assert len(rows) > len(TARGETS)
    assert missed(results)["memory when idle"] == [1000]


def test_a_child_whose_name_the_api_server_made_up_is_found_by_its_namespace() -> None:
    edited = an_edit(1.0)
    pod = a_write(1.2, name="", resource="pods", verb="create")
    assert list(last_effects([edited], [pod])) == []
    assert list(last_effects([edited], [pod], by_namespace)) == pytest.approx([0.2])


@pytest.mark.parametrize("owner", [each.kind.plural for each in CONTENDERS])
def test_what_a_manager_writes_to_the_object_itself_is_no_child(owner: str) -> None:
    status = a_write(1.2, resource=owner, subresource="status")
    assert status.of_operator
    assert not status.of_child


def test_an_edit_of_a_peer_changes_its_spec_and_goes_back() -> None:
    for each in CONTENDERS:
        before, after = each.spec("d00001", 0), each.spec("d00001", 1)
        assert before != after
        assert each.manifest("n", "d00001")["spec"] == before


def test_kserve_is_told_to_do_without_knative_and_istio() -> None:
    stored = {"data": {"ingress": '{"a": 1, "disableIstioVirtualHost": false}', "deploy": "{}"}}
    told = without_knative(stored)["data"]
    assert json.loads(told["deploy"]) == {"defaultDeploymentMode": "Standard"}
    assert json.loads(told["ingress"]) == {"a": 1, "disableIstioVirtualHost": True}


def test_rounds_become_their_median() -> None:
    assert medians([{"x": 1.0}, {"x": 5.0}, {"x": 2.0}]) == {"x": 2.0}


OURS = {
    "edit_child_p50_s": 0.013,
    "idle_cpu_percent": 0.4,
    "memory_idle_mib": 80.0,
    "memory_peak_mib": 120.0,
}


def rows_beside(**peer: float) -> dict[str, str]:
    table = side_by_side({"yolofleet": OURS, "kuberay": peer}).splitlines()
    assert len(table) == 2 + len(COMPARED)
    return {row.split(" | ")[0].removeprefix("| "): row for row in table}


def test_the_table_says_by_how_much_an_aim_beside_a_peer_was_missed() -> None:
    rows = rows_beside(edit_child_p50_s=0.005, idle_cpu_percent=0.31)
    edit = "| 13 ms | 5 ms | ≤ 1.2 × kuberay's: missed, 2.6 × |"
    assert rows["one edit → one child, p50"].endswith(edit)
    assert rows["idle: CPU of one core"].endswith("| ≤ 1.3 × kuberay's: met |")
    memory = "| 120 MiB | – | ≤ 1.5 × its idle memory: met |"
    assert rows["peak of memory, after a restart"].endswith(memory)
    assert rows["process ready"].endswith("| – | – |  |")


def test_an_aim_beside_a_peer_that_was_not_measured_or_cost_nothing() -> None:
    assert rows_beside()["idle: CPU of one core"].endswith("| not measured |")
    nothing = rows_beside(idle_cpu_percent=0.0)["idle: CPU of one core"]
    assert nothing.endswith("| 0 % | ≤ 1.3 × kuberay's: missed |")
