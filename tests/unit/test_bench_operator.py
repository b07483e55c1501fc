"""The operator's benchmark: what it reads from the audit log, and what it calls met or missed."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from bench.operator.audit import Audit, Write, last_effects, repairs
from bench.operator.report import TARGETS, Target, missed, table

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
