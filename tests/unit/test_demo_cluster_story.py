import json
from types import SimpleNamespace

import pytest

from demo_cluster import pictures, ray, sampler
from demo_cluster.detector import condition, told
from demo_cluster.errors import NotYet, TookTooLong, WrongResult
from demo_cluster.kube import documents
from demo_cluster.load import Summary
from demo_cluster.release import check_share, promoted, rolled_back
from demo_cluster.screen import table
from demo_cluster.waiting import eventually


def box(x1, y1, x2, y2):
    return {"x1": x1, "y1": y1, "x2": x2, "y2": y2}


def summary(**revisions: int) -> Summary:
    return Summary(sum(revisions.values()), {}, revisions, 1.0, 2.0)


def test_a_table_has_columns_of_one_width_with_numbers_to_the_right():
    assert table(["name", "x"], [["circle", "1.5"], ["ring", "10"]]) == [
        "name      x",
        "──────  ───",
        "circle  1.5",
        "ring     10",
    ]


def test_a_table_without_rows_is_its_head():
    assert table(["a", "b"], []) == ["a  b", "─  ─"]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (box(0, 0, 10, 10), box(0, 0, 10, 10), 1.0),
        (box(0, 0, 10, 10), box(5, 0, 15, 10), 1 / 3),
        (box(0, 0, 10, 10), box(10, 0, 20, 10), 0.0),
        (box(0, 0, 10, 10), box(50, 50, 60, 60), 0.0),
    ],
)
def test_overlap_of_boxes(one, other, expected):
    assert pictures.iou(one, other) == pytest.approx(expected)


def test_an_object_is_found_by_name_and_place_and_each_detection_counts_once():
    ring, star = (
        {"name": "ring", "box": box(0, 0, 10, 10)},
        {"name": "star", "box": box(0, 0, 9, 9)},
    )
    assert pictures.found([ring, star], [ring, star]) == 2
    assert pictures.found([ring, ring], [ring]) == 1
    assert pictures.found([ring], [star]) == 0
    assert pictures.found([ring], [{"name": "ring", "box": box(20, 20, 30, 30)}]) == 0


def test_the_example_pictures_have_known_objects():
    images = pictures.examples()
    assert len({image.data for image in images}) == len(images) >= 6
    assert all(image.objects for image in images)
    assert all(image.data.startswith(b"\xff\xd8") for image in images)


def test_a_fair_share_passes_and_an_unfair_one_is_told():
    assert check_share(summary(stable=1800, canary=200), "canary", 10) == 0.1
    assert check_share(summary(stable=1840, canary=160), "canary", 10) == 0.08
    with pytest.raises(WrongResult, match=r"canary answered 20\.0% of 2000 requests"):
        check_share(summary(stable=1600, canary=400), "canary", 10)
    with pytest.raises(WrongResult):
        check_share(summary(stable=2000), "canary", 10)


def test_a_canary_with_all_or_no_traffic_leaves_no_room():
    assert check_share(summary(canary=100), "canary", 100) == 1
    with pytest.raises(WrongResult):
        check_share(summary(stable=1, canary=99), "canary", 100)


def test_promotion_changes_what_the_canary_overrides_and_drops_the_canary():
    spec = {
        "model": {"uri": "demo://shapes", "sha256": "1", "classes": ["ring"]},
        "inference": {"confidence": 0.25, "iou": 0.7},
        "runtime": {"backend": "auto"},
        "replicas": 2,
        "canary": {
            "model": {"uri": "demo://shapes-v2", "classes": ["ring"]},
            "inference": {"confidence": 0.3},
            "runtime": {},
            "weight": 50,
            "match": [],
        },
    }
    assert promoted(spec) == {
        "model": {"uri": "demo://shapes-v2", "sha256": None},
        "inference": {"confidence": 0.3},
        "canary": None,
    }


def test_rolling_back_changes_only_what_differs():
    now = {"uri": "demo://shapes-v2", "classes": ["ring"]}
    before = {"uri": "demo://shapes", "classes": ["ring"]}
    assert rolled_back({"model": now}, before) == {"model": {"uri": "demo://shapes"}}


def test_a_stream_of_json_documents_is_cut_where_they_end():
    text = json.dumps({"a": 1}, indent=4) + "\n" + json.dumps({"b": 2}) + '\n{"c": '
    found, rest = documents(text)
    assert found == [{"a": 1}, {"b": 2}]
    assert rest == '{"c": '
    assert documents("") == ([], "")


def test_waiting_ends_with_what_was_looked_for():
    left = [NotYet("one"), NotYet("two")]

    def look() -> str:
        if left:
            raise left.pop()
        return "there"

    assert eventually("it", look, within_s=600, every_s=0) == "there"


def test_waiting_too_long_says_what_was_seen_and_what_to_do():
    def look() -> None:
        raise NotYet("0 of 2 replicas are ready")

    with pytest.raises(TookTooLong) as raised:
        eventually("gate to be Ready", look, within_s=0, every_s=0, hint="See: kubectl describe")
    assert str(raised.value) == (
        "Waited 0 s for gate to be Ready. Last seen: 0 of 2 replicas are ready\n"
        "See: kubectl describe"
    )


def test_a_condition_is_found_by_its_type_and_told_in_words():
    raw = {
        "status": {
            "conditions": [
                {"type": "Ready", "status": "False", "reason": "NothingReady", "message": "0 of 1"}
            ]
        }
    }
    assert told(condition(raw, "Ready")) == "Ready=False NothingReady: 0 of 1"
    assert told(condition({}, "Ready")) == "Ready is not told"


async def test_slow_answers_take_nothing_from_the_time_between_weight_and_pods(monkeypatch):
    """Pods were gone at the moment that is told, or before; the weight was there, or after."""
    clock = iter(range(1, 99))
    read: dict[str, int] = {}

    class Slow:
        async def list(self, _kind, namespace, selector):
            assert (namespace, selector) == ("shop", "yolofleet.io/detector=gate")
            read["pods"] = next(clock)
            return []

        async def get(self, *_):
            read["weights"] = next(clock)
            return {"spec": {"http": [{"route": []}]}}

    monkeypatch.setattr(sampler, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    sample = await sampler.Sampler("shop", "gate")._look(Slow())
    assert read["pods"] < sample.at < read["weights"]


class Asked:
    """A load whose requests have ended as they were to."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    @property
    def answered(self) -> int:
        return len(self.ended)

    def wait_for(self, more: int, *, within_s: float) -> None:  # noqa: ARG002 - as that of Load
        self.ended += ["" for _ in range(more)]

    def summary(self, since: int = 0) -> Summary:
        ended = self.ended[since:]
        return Summary(len(ended), {f: ended.count(f) for f in set(ended) - {""}}, {}, 1.0, 2.0)


def test_each_part_of_the_story_counts_what_ended_in_it_and_a_moment_after(capsys):
    load = Asked()
    phases = ray.Phases(load)  # type: ignore[arg-type]
    with phases.during("a start"):
        load.ended += ["HTTP 504"]
    with phases.during("a release"):
        pass
    assert {name: (each.requests, each.failed) for name, each in phases.by_name.items()} == {
        "a start": (ray.FEWER + 1, 1),
        "a release": (ray.FEWER, 0),
    }
    assert phases.table()[-1].split() == ["a", "release", "200", "0", "1", "2"]


def test_both_engines_are_asked_for_half_of_what_the_slower_one_carries():
    assert ray.Rate(deployment=60, ray=40).asked == 20
    assert ray.Rate(deployment=30, ray=40).asked == 15
