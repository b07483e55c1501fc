"""The golden set: tried by the server itself, beside its requests; whatever is wrong is told."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from yoloserve.detections.postprocess import UnnamedClass
from yoloserve.quality import golden, scores

NAMES = "circle\nsquare\nstar\n"


async def until(happens: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not happens():  # noqa: ASYNC110 (what happens is nobody's to tell)
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def looks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that the test does not call for would see the set while it is being written."""
    monkeypatch.setattr(golden, "LOOK_AGAIN_S", 3600)


async def labels_of(served: Any, jpeg: bytes) -> str:
    """Write down what the server finds, as YOLO does."""
    told = (await served.detect(jpeg)).json()
    width, height = told["image"]["width"], told["image"]["height"]
    lines = []
    for each in told["detections"]:
        box = each["box"]
        x, y = (box["x1"] + box["x2"]) / 2 / width, (box["y1"] + box["y2"]) / 2 / height
        w, h = (box["x2"] - box["x1"]) / width, (box["y2"] - box["y1"]) / height
        lines.append(f"{each['class']} {x} {y} {w} {h}")
    return "\n".join(lines)


def state(served: Any) -> str:
    return str(served.serving.golden.progress["state"])


async def looked(served: Any) -> None:
    """Wait for the look that a server begins with, at a set that is none."""
    await until(lambda: state(served) == "failed")


async def test_it_looks_again_and_again(one_picture) -> None:
    _, one, tried, breaths = one_picture
    running = asyncio.create_task(one.run())
    await until(lambda: len(breaths) >= 3)
    running.cancel()
    assert breaths[:3] == [golden.LOOK_AGAIN_S] * 3
    assert len(tried) == 1, "the set is the same"


async def test_what_it_finds_of_what_is_known_is_told(serve, jpeg: bytes, tmp_path: Path) -> None:
    async with serve(golden_dir=tmp_path) as served:
        await looked(served)
        assert "no pictures" in served.serving.evidence()["golden"]["message"]
        text = (await served.client.get("/metrics")).text
        assert 'yoloserve_golden_state{state="failed"} 1.0' in text
        assert "no pictures" not in text, "what names files is for the set's owner"
        labels = await labels_of(served, jpeg)
        (tmp_path / "classes.txt").write_text(NAMES)
        (tmp_path / "a.txt").write_text(labels)
        (tmp_path / "a.jpg").write_bytes(jpeg)
        await served.serving.golden.look()
        told = served.serving.evidence()
        assert state(served) == "done"
        assert told["golden"]["map50"] == pytest.approx(1)
        assert told["golden"]["map50_class"] == {"circle": 1, "star": 1}
        assert told["golden"]["images"] == 1
        assert told["requests"]["golden"] == {"ok": 1}
        assert told["images"] == 1, "the request's own alone"
        text = (await served.client.get("/metrics")).text
        assert "yoloserve_golden_map50 1.0" in text
        assert f'set_sha256="{told["golden"]["set_sha256"]}"' in text


async def test_another_set_is_tried_and_the_same_is_not(serve, jpeg, tmp_path: Path) -> None:
    async with serve(golden_dir=tmp_path) as served:
        await looked(served)
        labels = await labels_of(served, jpeg)
        (tmp_path / "a.txt").write_text(labels)
        (tmp_path / "a.jpg").write_bytes(jpeg)
        await served.serving.golden.look()
        first = served.serving.golden.progress["set_sha256"]
        await served.serving.golden.look()
        assert served.serving.evidence()["requests"]["golden"] == {"ok": 1}
        (tmp_path / "a.txt").write_text(f"{labels}\n1 0.05 0.05 0.01 0.01")
        await served.serving.golden.look()
        assert state(served) == "done"
        assert served.serving.golden.progress["set_sha256"] != first
        assert served.serving.golden.progress["map50"] == pytest.approx(2 / 3, abs=0.01)


async def test_a_mounted_configmap_has_each_picture_once(serve, jpeg, tmp_path: Path) -> None:
    """Kubernetes mounts links to links: NAME -> ..data/NAME, ..data -> ..2026_11_29."""
    real = tmp_path / "..2026_11_29"
    real.mkdir()
    async with serve(golden_dir=tmp_path) as served:
        await looked(served)
        (real / "a.txt").write_text(await labels_of(served, jpeg))
        (real / "a.jpg").write_bytes(jpeg)
        (tmp_path / "..data").symlink_to(real.name)
        for name in ("a.txt", "a.jpg"):
            (tmp_path / name).symlink_to(f"..data/{name}")
        await served.serving.golden.look()
        assert state(served) == "done"
        assert served.serving.golden.progress["images"] == 1


def test_models_that_number_their_classes_otherwise_have_the_same_set(jpeg, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text(NAMES)
    (tmp_path / "a.txt").write_text("2 0.5 0.5 0.1 0.1")
    (tmp_path / "a.jpg").write_bytes(jpeg)
    one = golden._read(tmp_path, ("circle", "square", "star"))
    other = golden._read(tmp_path, ("star", "circle", "square"))
    assert one.sha256 == other.sha256
    assert (one.pictures[0].classes, other.pictures[0].classes) == ([2], [0])


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"a.jpg": None}, "a.jpg has no labels: add a.txt"),
        ({"a.jpg": None, "a.txt": ""}, "no picture of the set has an object"),
        ({"a.jpg": b"no picture", "a.txt": "0 0.5 0.5 0.1 0.1"}, "a.jpg: "),
        ({"a.jpg": None, "a.txt": "7 0.5 0.5 0.1 0.1"}, "class 7 of 3"),
        ({"a.jpg": None, "a.txt": "one 0.5"}, "a.txt, line 1: could not convert"),
        ({"a.jpg": None, "a.txt": "0 .5 .5 .1 .1 .9"}, "a.txt, line 1: it has 6 values"),
        ({"a.jpg": None, "a.txt": "0 320 240 40 40"}, "a.txt, line 1: it has a box beyond its"),
        ({"a.jpg": None, "a.txt": "0 .5 .5 .1 .1", "classes.txt": "truck"}, "no class 'truck'"),
        ({"a.jpg": None, "a.txt": "0 .5 .5 .1 .1", "data.yaml": "names: ["}, "no YAML"),
        ({"a.jpg": None, "a.txt": "0 .5 .5 .1 .1", "data.yaml": "[]"}, "has no names"),
        ({"a.jpg": None, "a.txt": "0 .5 .5 .1 .1", "data.yaml": "names: a"}, "has no names"),
    ],
)
async def test_a_broken_set_is_told_and_the_server_serves(
    serve, jpeg, tmp_path: Path, files: dict[str, Any], says: str
) -> None:
    for name, content in files.items():
        written = jpeg if content is None else content
        (tmp_path / name).write_bytes(written.encode() if isinstance(written, str) else written)
    async with serve(golden_dir=tmp_path) as served:
        await looked(served)
        assert says in served.serving.golden.progress["message"]
        tried = dict(served.serving.evidence()["requests"]["golden"])
        await served.serving.golden.look()
        assert served.serving.evidence()["requests"]["golden"] == tried, "not again and again"
        assert (await served.detect(jpeg)).status_code == 200
        assert (await served.client.get("/health/ready")).status_code == 200


@pytest.fixture
async def one_picture(serve, jpeg, tmp_path: Path) -> AsyncIterator[Any]:
    """Serve beside a set of one picture that nobody has tried, and count breaths."""
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.1 0.1")
    (tmp_path / "a.jpg").write_bytes(jpeg)
    async with serve() as served:
        tried: list[Any] = []
        breaths: list[float] = []

        async def sleep(seconds: float) -> None:
            breaths.append(seconds)
            await asyncio.sleep(0)

        one = golden.GoldenSet(
            tmp_path, served.detector, lambda: served.core.busy, answered=tried.append, sleep=sleep
        )
        yield served, one, tried, breaths


async def test_each_picture_is_compared_before_the_next_is_tried(
    one_picture, jpeg: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that compared them all would delay requests for minutes, and outlive a SIGTERM."""
    (tmp_path / "b.jpg").write_bytes(jpeg)
    (tmp_path / "b.txt").touch()
    _, one, tried, _ = one_picture
    compared: list[int] = []

    class Tally(scores.Tally):
        def add(self, *told: Any) -> None:
            compared.append(len(tried))
            super().add(*told)

    monkeypatch.setattr(golden, "Tally", Tally)
    await one.look()
    assert one.progress["state"] == "done"
    assert compared == [1, 2]


async def test_an_object_that_nobody_can_name_ends_the_set_and_it_is_tried_once(
    one_picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, one, _, _ = one_picture
    asked: list[int] = []

    async def aside(*_: Any, **__: Any) -> Any:
        asked.append(1)
        raise UnnamedClass("the network found an object of class 7")

    monkeypatch.setattr(served.detector, "aside", aside)
    await one.look()
    await one.look()
    assert one.progress["state"] == "failed"
    assert one.progress["message"] == "a.jpg: the network found an object of class 7"
    assert len(asked) == 1


@pytest.mark.parametrize("waits", [3, 1000], ids=["for a while", "always"])
async def test_a_picture_waits_while_requests_do_and_two_seconds_at_most(
    one_picture, waits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, one, tried, breaths = one_picture
    busy = property(lambda _core: len(breaths) < waits)
    monkeypatch.setattr(type(served.core), "busy", busy)
    await one.look()
    assert len(tried) == 1
    assert sum(breaths) == pytest.approx(min(0.05 * waits, 2))
    assert one.progress["state"] == "done"


async def test_it_takes_nobodys_place_and_teaches_nothing_of_how_long_they_wait(
    one_picture,
) -> None:
    """All that is ever so unsure is looked for in it: who asks has to wait for less."""
    served, one, tried, _ = one_picture
    core = served.core
    full = core.admission.inside = core._most_inside()
    before = core.preparing.predict(1)
    await one.look()
    assert len(tried) == 1
    assert core.preparing.predict(1) == before
    assert core.admission.inside == full
    core.admission.inside = 0
