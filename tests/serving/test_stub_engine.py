"""The stub engine: the real server around a wait that can be told how long it is."""

import asyncio
import json
from pathlib import Path

import httpx
import numpy as np
import pytest

from cluster import images
from stub_engine import engine as stub
from yoloserve.errors import InvalidSettings
from yoloserve.settings import Settings

EX_CONFIG = 78
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def told_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file that may change; there is none yet."""
    monkeypatch.setenv("YOLOSTUB_FILE", str(tmp_path / "stub.env"))
    return tmp_path / "stub.env"


@pytest.fixture
def start(clock, tmp_path: Path):
    """Start a stub for which time passes on the simulated clock."""

    def sleep(seconds: float) -> None:
        clock.now += seconds

    return lambda **told: stub.start(Settings(cache_dir=tmp_path, **told), sleep)


def pictures(count: int = 1, height: int = 500, width: int = 1000) -> list[np.ndarray]:
    return [np.zeros((height, width, 3), np.uint8)] * count


def counted(text: str, outcome: str) -> float:
    """Say what the metrics count of an outcome."""
    lines = [line for line in text.splitlines() if line.startswith("yoloserve_requests_total")]
    return sum(float(line.split()[-1]) for line in lines if f'outcome="{outcome}"' in line)


@pytest.mark.parametrize(
    ("count", "seconds"), [(1, 0.005 + 0.002 + 0.010), (4, 0.005 + 4 * 0.002 + 4 * 0.010)]
)
def test_a_call_takes_its_time_by_images_and_pixels(
    start, clock, monkeypatch, count: int, seconds: float
) -> None:
    monkeypatch.setenv("YOLOSTUB_SERVICE_MS", "5")
    monkeypatch.setenv("YOLOSTUB_SERVICE_MS_PER_IMAGE", "2")
    monkeypatch.setenv("YOLOSTUB_SERVICE_MS_PER_MEGAPIXEL", "20")
    engine, began = start(), clock.now
    assert len(engine.infer(0, pictures(count))) == count
    assert clock.now - began == pytest.approx(seconds)


async def test_it_writes_as_many_places_as_a_network_and_sees_one_object_at_some_of_them(
    serve, start, monkeypatch, jpeg
) -> None:
    """What comes after a network is to be done on as much as it gives."""
    monkeypatch.setenv("YOLOSTUB_CANDIDATES", "20")
    engine = start(classes=tuple("abcd"), precision="bf16")
    (output,) = engine.infer(0, pictures(height=384, width=640))
    assert output.shape == (4 + 4, 48 * 80 + 24 * 40 + 12 * 20)
    assert (output[4:] > 0.25).sum() == 20
    async with serve(engine=engine) as served:
        (seen,) = (await served.detect(jpeg)).json()["detections"]
    assert seen["name"] == "a"
    assert [seen["box"][side] for side in ("x1", "y1", "x2", "y2")] == [40, 21, 120, 69]


async def test_the_server_queues_and_promises_by_the_time_it_was_told(
    serve, start, clock, monkeypatch, jpeg
) -> None:
    monkeypatch.setenv("YOLOSTUB_SERVICE_MS", "20")
    async with serve(clock, start()) as served:
        assert served.core.batcher.capacity_per_s == pytest.approx(50)
        began = clock.now
        answers = await asyncio.gather(*(served.detect(jpeg) for _ in range(20)))
        assert {answer.status_code for answer in answers} == {200}
        assert clock.now - began == pytest.approx(20 * 0.020)  # one after the other, and no more
        told = [answer.json()["timing_ms"]["inference"] for answer in answers]
        assert told == pytest.approx([20] * 20)
        late = await served.detect(jpeg, **{"x-deadline-ms": "10"})
        assert late.status_code == 504


async def test_a_batch_shares_its_time(serve, start, clock, monkeypatch, jpeg) -> None:
    monkeypatch.setenv("YOLOSTUB_MAX_BATCH", "4")
    async with serve(clock, start()) as served:
        assert served.core.batcher.capacity_per_s == pytest.approx(4 * 50)


async def test_as_many_calls_fail_as_were_asked_for_and_the_metrics_count_them(
    serve, start, monkeypatch, jpeg
) -> None:
    monkeypatch.setenv("YOLOSTUB_FAILURES", "0.25")
    async with serve(engine=start()) as served:
        statuses = [(await served.detect(jpeg)).status_code for _ in range(20)]
        metrics = (await served.client.get("/metrics")).text
    assert (statuses.count(200), statuses.count(500)) == (15, 5)
    assert counted(metrics, "ok") == 15
    assert counted(metrics, "internal") == 5


async def test_a_file_makes_it_slow_and_failing_while_it_runs(
    serve, start, clock, told_nothing: Path, jpeg
) -> None:
    def tell(text: str) -> None:
        told_nothing.write_text(text)

    async with serve(engine=start()) as served:
        assert (await served.detect(jpeg)).status_code == 200
        tell("# a canary goes bad\nYOLOSTUB_SERVICE_MS=200\nYOLOSTUB_FAILURES=1\n")
        began = clock.now
        assert (await served.detect(jpeg)).status_code == 500
        assert clock.now - began == pytest.approx(0.200)
        tell("")  # as it was told at the start
        began = clock.now
        assert (await served.detect(jpeg)).status_code == 200
        assert clock.now - began == pytest.approx(0.020)


def test_a_file_that_cannot_be_meant_changes_nothing_and_is_told_once(
    start, clock, told_nothing: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = start()
    told_nothing.write_text("YOLOSTUB_SERVICE_MS=soon")
    for _ in range(2):
        began = clock.now
        engine.infer(0, pictures())
        assert clock.now - began == pytest.approx(0.020)
    (line,) = [line for line in caplog.records if line.levelname == "WARNING"]
    assert "YOLOSTUB_SERVICE_MS" in line.reason


@pytest.mark.parametrize(
    ("name", "value"),
    [("YOLOSTUB_FAILURES", "1.5"), ("YOLOSTUB_LANES", "0"), ("YOLOSTUB_SERVICE", "5")],
)
def test_settings_that_cannot_be_meant_are_named(start, monkeypatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettings, match=name):
        start()


@pytest.mark.parametrize("line", ["YOLOSTUB_LANES=2", "SERVICE_MS=2", "YOLOSTUB_SERVICE_MS"])
def test_what_a_file_may_not_change_is_refused_at_the_start(
    start, told_nothing: Path, line: str
) -> None:
    told_nothing.write_text(line)
    with pytest.raises(InvalidSettings, match=line.partition("=")[0]):
        start()


def test_a_model_is_fetched_and_told_as_by_the_server(start, make_model) -> None:
    address = make_model()
    engine = start(model=address, revision="gate-1", classes='["bus", "tram"]')
    assert (engine.info.name, engine.info.revision) == ("gate", "gate-1")
    assert engine.info.classes == ("bus", "tram")
    with pytest.raises(Exception, match="asked for"):
        start(model=address, sha256="0" * 64)


def test_the_whole_server_runs_around_it_and_drains(run_server, jpeg, monkeypatch) -> None:
    monkeypatch.setenv("YOLOSTUB_SERVICE_MS", "0.2")
    server = run_server("stub_engine", revision="gate-1")
    url = server.logged("ready")["url"]
    answer = httpx.post(url + "v1/detect", content=jpeg, timeout=60)
    assert answer.headers["x-yolofleet-revision"] == "gate-1"
    (found,) = answer.json()["detections"]
    assert (found["name"], found["box"]["x1"]) == ("circle", 40)  # of 160 pixels
    server.terminate()
    server.logged("draining")
    assert server.process.wait(60) == 0


def test_a_start_that_cannot_be_meant_ends_as_the_servers_does(run_server, monkeypatch) -> None:
    monkeypatch.setenv("YOLOSTUB_FAILURES", "2")
    server = run_server("stub_engine", anew=True)
    assert server.process.wait(60) == EX_CONFIG
    told = json.loads(server.termination_log.read_text())
    assert told["reason"] == "InvalidSettings"
    assert "YOLOSTUB_FAILURES" in told["message"]


def test_it_is_in_no_image_of_the_product() -> None:
    for product in images.PRODUCTS.values():
        copied = images.inputs((ROOT / product.dockerfile).read_text())
        assert not [path for path in copied if path.split("/")[0] in {"dev", "."}]
    assert images.inputs((ROOT / images.STUB.dockerfile).read_text()) == ["dev/stub_engine"]
    assert images.STUB not in images.PRODUCTS.values()
    for source in (ROOT / "serving_image/yoloserve").rglob("*.py"):
        assert "stub_engine" not in source.read_text()
