"""The pictures on which two revisions differ most: few, not for long, and for who has their key."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from yoloserve.detections.postprocess import Detections
from yoloserve.shadow.album import ALIKE_S, LASTS_S, MOST_BYTES, MOST_FRAMES, Album
from yoloserve.shadow.drawing import ADDED, CONFUSED, LOST, SIDE, STRIP, side_by_side
from yoloserve.shadow.pairs import Difference, Found, difference

STABLE, CANARY, OTHER = "gate-1111aaaa", "gate-2222bbbb", "gate-3333cccc"
KEY, CLIENTS, SHADOWS = "only-one-person-has-it", "an-application-has-it", "revisions-have-this"
NAMES = ("circle", "square", "star")
LEFT, MIDDLE, RIGHT = (10, 10, 50, 40), (70, 20, 100, 60), (110, 40, 150, 80)


def found(*objects: tuple[tuple[int, ...], int]) -> Found:
    boxes = np.array([box for box, _ in objects], np.float32).reshape(-1, 4)
    kinds = np.array([kind for _, kind in objects], np.int64)
    return Found(Detections(boxes, np.full(len(kinds), 0.9, np.float32), kinds), NAMES, 0.25, 0.01)


# A circle is lost, a star is added, and a square is called a circle.
OURS, THEIRS = found((LEFT, 0), (MIDDLE, 1)), found((MIDDLE, 0), (RIGHT, 2))


def differing(by: int) -> tuple[Found, Found, Difference]:
    """Two answers, one of which lacks so many objects."""
    whole = found(*[((60 * at, 0, 60 * at + 40, 40), 0) for at in range(by)])
    return whole, found(), difference(whole, found())


def offer(album: Album, by: int, encoded: bytes = b"a picture", canary: str = CANARY) -> None:
    stable, none, told = differing(by)
    album.offer(canary, encoded, stable, none, told.apart)


def kept(album: Album) -> list[int]:
    return [len(frame.apart) for frame in album.frames()]


@pytest.fixture
def album(clock) -> Album:
    album = Album(clock, wall=lambda: 1_764_400_000.0)
    album.follow(CANARY)
    return album


def test_objects_about_which_two_disagree_are_told_apart_and_none_is_told_twice() -> None:
    apart = difference(OURS, THEIRS).apart
    assert apart.lost.boxes.tolist() == [list(LEFT)]
    assert apart.added.boxes.tolist() == [list(RIGHT)]
    assert [found.boxes.tolist() for found in apart.confused] == [[list(MIDDLE)]] * 2
    assert [apart.classes[found.classes[0]] for found in apart.confused] == ["square", "circle"]
    assert len(apart) == 3
    assert len(difference(OURS, OURS).apart) == 0


def named(told: Detections, names: tuple[str, ...]) -> list[str]:
    return [names[kind] for kind in told.classes.tolist()]


@pytest.mark.parametrize(
    ("theirs", "lost", "added", "confused"),
    [
        ([(MIDDLE, 0)], ["circle"], [], []),  # it has no such class, and leaves its objects out
        ([(LEFT, 1), (MIDDLE, 0)], [], [], [("circle", "comet")]),  # or gives them another name
        ([(LEFT, 0), (MIDDLE, 0)], [], [], [("circle", "square")]),  # a name that both have
        ([(RIGHT, 1), (MIDDLE, 0)], ["circle"], ["comet"], []),
    ],
)
def test_objects_of_a_class_that_only_one_model_has_are_differences_too(
    theirs: list[Any], lost: list[str], added: list[str], confused: list[tuple[str, str]]
) -> None:
    other = replace(found(*theirs), classes=("square", "comet"))
    apart = difference(OURS, other).apart
    assert (named(apart.lost, apart.classes), named(apart.added, apart.classes)) == (lost, added)
    pairs = zip(*(named(each, apart.classes) for each in apart.confused), strict=True)
    assert list(pairs) == confused


def test_pictures_of_a_class_that_the_canary_has_lost_are_kept(album) -> None:
    without = replace(found((MIDDLE, 0)), classes=("square", "star"))  # else it finds all
    told = difference(OURS, without)
    assert (told.expected, told.only_stable) == (told.kept, {"circle": 1})
    album.offer(CANARY, b"a picture", OURS, without, told.apart)
    [frame] = album.frames()
    assert named(frame.apart.lost, frame.apart.classes) == ["circle"]


def test_the_few_that_differ_most_are_kept_the_first_of_them_first(album, clock) -> None:
    for by in [3, 0, 1, *[2] * MOST_FRAMES, 4]:
        clock.now += ALIKE_S
        offer(album, by)
    assert kept(album) == [4, 3, *[2] * (MOST_FRAMES - 2)]
    newest, oldest = album.frames()[2], album.frames()[-1]
    assert newest.at > oldest.at


def test_of_those_that_look_the_same_the_one_that_differs_most_is_kept(album, clock) -> None:
    for by in (2, 1, 3, 3, 2):
        offer(album, by)
        clock.now += ALIKE_S / 10
    assert kept(album) == [3]


def test_their_bytes_are_counted_and_those_that_differ_least_make_room(album, clock) -> None:
    for by in (5, 4, 3, 2, 1):
        clock.now += ALIKE_S
        offer(album, by, bytes(MOST_BYTES // 4))
    assert kept(album) == [5, 4, 3]  # a fourth would fit, but for the boxes
    clock.now += ALIKE_S
    offer(album, 6, bytes(MOST_BYTES + 1))
    assert kept(album) == []


def test_the_names_that_a_canary_gives_its_classes_are_counted_too(album, clock) -> None:
    stable, none, _ = differing(1)
    wordy = replace(none, classes=("x" * MOST_BYTES, *NAMES))
    album.offer(CANARY, b"", stable, wordy, difference(stable, wordy).apart)
    assert kept(album) == []


def test_a_large_one_that_differs_little_displaces_none_that_differs_more(album, clock) -> None:
    for by, size in ((5, 10), (3, 10), (4, MOST_BYTES)):
        clock.now += ALIKE_S
        offer(album, by, bytes(size))
    assert kept(album) == [5]


def test_each_is_gone_after_an_hour(album, clock) -> None:
    offer(album, 1)
    [first] = album.frames()
    clock.now += LASTS_S / 2
    offer(album, 2)
    clock.now += LASTS_S / 2
    assert kept(album) == [2]
    assert album.frame(first.name) is None
    clock.now += LASTS_S / 2
    assert kept(album) == []


@pytest.mark.parametrize("follows", [OTHER, ""])
def test_all_are_gone_with_the_release_and_nothing_of_another_is_kept(album, follows) -> None:
    offer(album, 1)
    album.follow(CANARY)
    assert kept(album) == [1]
    album.follow(follows)
    assert kept(album) == []
    offer(album, 1)  # what was under way
    assert kept(album) == []


def colours(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    """Count the pixels that are about of this colour: it went through a JPEG."""
    return int((np.abs(picture.astype(int) - colour).max(axis=2) < 24).sum())


def test_both_answers_are_drawn_side_by_side_in_the_colours_of_the_legend(jpeg) -> None:
    apart = difference(OURS, THEIRS).apart
    drawn = side_by_side(jpeg, 10**6, (STABLE, OURS), (CANARY, THEIRS), apart)
    picture = cv2.imdecode(np.frombuffer(drawn, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[1] > 2 * SIDE
    body = picture[STRIP:-STRIP]
    left, right = body[:, :SIDE], body[:, -SIDE:]
    for colour, here, there in ((LOST, left, right), (ADDED, right, left)):
        assert colours(here, colour) > colours(there, colour) > 100  # dashed
    assert colours(left, CONFUSED) > 1000
    assert colours(right, CONFUSED) > 1000
    same = side_by_side(jpeg, 10**6, (STABLE, OURS), (CANARY, OURS), difference(OURS, OURS).apart)
    plain = cv2.imdecode(np.frombuffer(same, np.uint8), cv2.IMREAD_COLOR)[STRIP:-STRIP]
    assert max(colours(plain, colour) for colour in (LOST, ADDED, CONFUSED)) < 100


@pytest.mark.parametrize("box", [(-1e6, -1e6, 1e6, 1e6), (5, 5, 5, 5), (90, 90, 10, 10)])
def test_no_box_is_too_odd_to_be_drawn(jpeg, box) -> None:
    odd = found((box, 0))
    odd = replace(odd, classes=("车 " * 50, "square", "star"))
    apart = difference(odd, THEIRS).apart
    assert side_by_side(jpeg, 10**6, (STABLE, odd), (CANARY, THEIRS), apart)


@pytest.fixture
def own(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "frames").write_text(KEY)
    (tmp_path / "keys").write_text(f"app {CLIENTS}\n")
    (tmp_path / "shadow").write_text(SHADOWS)
    return {
        "revision": STABLE,
        "frames_key_file": tmp_path / "frames",
        "shadow_key_file": tmp_path / "shadow",
    }


def fill(served: Any, jpeg: bytes) -> None:
    album = served.serving.shadow.album
    album.follow(CANARY)
    album.offer(CANARY, jpeg, OURS, THEIRS, difference(OURS, THEIRS).apart)


def shown(key: str) -> dict[str, str]:
    return {"X-Yoloserve-Frames-Key": key}


async def test_who_has_the_key_sees_of_which_pod_they_are_what_differs_and_the_pictures(
    serve, own, jpeg
) -> None:
    async with serve(**own) as served:
        fill(served, jpeg)
        answer = await served.client.get("/disagreements", headers=shown(KEY))
        told = answer.json()
        assert (told["revision"], told["canary"]) == (STABLE, CANARY)
        assert told["pod"]
        [frame] = told["frames"]
        assert frame["lost"] == {"circle": 1}
        assert frame["added"] == {"star": 1}
        assert frame["confused"] == {"square": {"circle": 1}}
        picture = await served.client.get(f"/disagreements/{frame['name']}.jpg", headers=shown(KEY))
        assert picture.headers["content-type"] == "image/jpeg"
        assert cv2.imdecode(np.frombuffer(picture.content, np.uint8), cv2.IMREAD_COLOR) is not None
        for each in (answer, picture):
            assert each.headers["cache-control"] == "no-store"
        gone = await served.client.get("/disagreements/0000000000000000.jpg", headers=shown(KEY))
        assert gone.status_code == 404


@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize("key", [None, "", KEY[:-1], KEY + "x", CLIENTS, SHADOWS, "é", "é" * 20])
async def test_without_its_key_there_is_no_such_page_for_anybody(
    serve, own, jpeg, tmp_path: Path, guarded: bool, key: str | None
) -> None:
    keys = {"api_keys_file": tmp_path / "keys"} if guarded else {}
    async with serve(**own, **keys) as served:
        fill(served, jpeg)
        name = served.serving.shadow.album.frames()[0].name
        headers = {"Authorization": f"Bearer {CLIENTS}"}
        if key is not None:
            headers |= {"X-Yoloserve-Frames-Key": key.encode()}
        for path in ("/disagreements", f"/disagreements/{name}.jpg"):
            answer = await served.client.get(path, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
        with_it = await served.client.get("/disagreements", headers=shown(KEY))
        assert with_it.status_code == 200  # who may look need not be a client


@pytest.mark.parametrize("also", ["keys", "shadow"])
async def test_a_key_that_does_anything_else_shows_nothing(serve, own, tmp_path, also) -> None:
    (tmp_path / "frames").write_text(CLIENTS if also == "keys" else SHADOWS)
    async with serve(**own, api_keys_file=tmp_path / "keys") as served:
        key = (tmp_path / "frames").read_text()
        assert (await served.client.get("/disagreements", headers=shown(key))).status_code == 404


@pytest.mark.parametrize("content", [None, "", "short", "é" * 20])
async def test_where_none_is_configured_no_key_shows_them(serve, own, jpeg, content) -> None:
    if content is None:
        own["frames_key_file"] = None
    else:
        own["frames_key_file"].write_text(content)
    async with serve(**own) as served:
        fill(served, jpeg)
        for key in ("", content or KEY):
            headers = {"X-Yoloserve-Frames-Key": key.encode()}
            answer = await served.client.get("/disagreements", headers=headers)
            assert answer.status_code == 404


async def test_nothing_of_it_is_in_logs_metrics_or_evidence(serve, own, jpeg, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    async with serve(**own, access_log=True) as served:
        fill(served, jpeg)
        name = served.serving.shadow.album.frames()[0].name
        await served.client.get("/disagreements", headers=shown(KEY))
        await served.client.get(f"/disagreements/{name}.jpg", headers=shown(KEY))
        await served.client.get("/disagreements", headers=shown("someone-guesses-a-key"))
        metrics = (await served.client.get("/metrics")).text
        evidence = json.dumps(served.serving.evidence())
        said = "".join(json.dumps(vars(record), default=repr) for record in caplog.records)
        said = said.replace(f"/disagreements/{name}.jpg", "")  # who asked for what is told
    for text in (metrics, evidence, said):
        assert KEY not in text
        assert "guesses" not in text
    assert name not in metrics + evidence
    assert "not_found" not in evidence  # and none of it is a request that failed
