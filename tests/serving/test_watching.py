"""A server that stops seeing notices, says so, and leaves."""

import asyncio

import numpy as np
import pytest

from yoloserve.detections.postprocess import Head, Output
from yoloserve.engine import watching
from yoloserve.engine.watching import BLIND_LOOKS, BUSY_ROUNDS, LOOK_AGAIN_S, Watch, seen_alike
from yoloserve.http.server import BLIND_EXIT, Server
from yoloserve.settings import Settings

PLACES = Head.ANCHOR_FREE_ROWS
SEEN = np.array([[90, 60, 40, 20, 0.9], [30, 20, 10, 10, 0.1]], np.float32)
BLIND = np.where(np.arange(5) < 4, SEEN, 0).astype(np.float32)


@pytest.mark.parametrize(
    ("output", "alike"),
    [
        (SEEN, True),
        (SEEN * 1.01, True),
        (SEEN * 0, False),
        (SEEN * 1.2, False),
        (SEEN * np.nan, False),
        (SEEN[:1], False),
        (np.where(SEEN > 3, np.inf, SEEN), False),
        (BLIND, False),
    ],
)
def test_the_same_picture_gives_the_same_numbers(output: Output, alike: bool) -> None:
    assert seen_alike(output, SEEN, PLACES) == alike


def test_a_network_that_never_said_anything_may_go_on_saying_nothing() -> None:
    assert seen_alike(SEEN * 0, SEEN * 0, PLACES)
    assert not seen_alike(SEEN, SEEN * 0, PLACES)


def rows(*objects: tuple[float, ...]) -> Output:
    """Return an output of an end-to-end head: x1, y1, x2, y2, score, class."""
    return np.array(objects, np.float32).reshape(-1, 6)


SURE = (100, 80, 200, 160, 0.9, 0), (300, 40, 360, 90, 0.8, 1)
UNSURE = (20, 300, 60, 380, 0.0012, 2), (400, 300, 420, 310, 0.0011, 0)
OTHER = (500, 10, 520, 12, 0.0011, 3)
AT_THRESHOLD = (20, 300, 60, 380, 0.251, 2)
OFF = tuple((x1 + 40, y1, x2 + 40, y2, score, kind) for x1, y1, x2, y2, score, kind in SURE)
OF_FEW = rows(*SURE)  # as a graph with a threshold writes them
OF_ALL = rows(*SURE, *UNSURE)  # as one that writes its 300 surest does, whatever they are
FULL = np.pad(OF_FEW, ((0, 298), (0, 0)))
ABOUT_AS_SURE = rows((100, 80, 200, 160, 0.45, 0), (300, 40, 360, 90, 0.42, 1))


@pytest.mark.parametrize(
    ("output", "reference", "alike"),
    [
        (rows(*SURE[::-1], *UNSURE[::-1]), OF_ALL, True),
        (rows(*SURE, UNSURE[0], OTHER), OF_ALL, True),
        (rows(*SURE, AT_THRESHOLD), OF_FEW, True),
        (OF_FEW, rows(*SURE, AT_THRESHOLD), True),
        (FULL, OF_FEW, True),
        (rows(AT_THRESHOLD), rows(), True),
        (rows(), rows(AT_THRESHOLD), False),
        (ABOUT_AS_SURE[::-1], ABOUT_AS_SURE, True),
        (np.add(ABOUT_AS_SURE, [0, 0, 0, 0, 0.002, 0]), ABOUT_AS_SURE, True),
        (rows(), ABOUT_AS_SURE, False),
        (FULL * 0, np.pad(ABOUT_AS_SURE, ((0, 298), (0, 0))), False),
        (np.add(ABOUT_AS_SURE, [40, 0, 40, 0, 0, 0]), ABOUT_AS_SURE, False),
        (ABOUT_AS_SURE[:1], ABOUT_AS_SURE, False),
        (rows(), rows(), True),
        (rows(), OF_FEW, False),
        (FULL * 0, FULL, False),
        (rows(*UNSURE), OF_ALL, False),
        (rows(*OFF, *UNSURE), OF_ALL, False),
        (rows(SURE[0]), OF_FEW, False),
        (OF_FEW, rows(), False),
        (OF_ALL * np.nan, OF_ALL, False),
    ],
)
def test_objects_are_compared_without_their_order(
    output: Output, reference: Output, alike: bool
) -> None:
    assert seen_alike(output, reference, Head.END_TO_END) == alike


def test_where_all_is_unsure_a_network_without_scores_is_blind_all_the_same() -> None:
    scores = np.geomspace(1e-3, 1e-5, 300)
    unsure = np.c_[np.tile([10.0, 20.0, 90.0, 80.0], (300, 1)), scores, np.zeros(300)]
    blind = unsure * [1, 1, 1, 1, 0, 1]
    assert not seen_alike(blind.astype(np.float32), unsure.astype(np.float32), Head.END_TO_END)


class Scene:
    """A watch over outputs that are given, on a clock that only counts."""

    def __init__(self, *outputs: Output | Exception | asyncio.Event, busy: int = 0) -> None:
        self.outputs = iter(outputs)
        self.slept: list[float] = []
        self.busy = busy
        self.states: list[bool] = []
        self.left = False
        self.looks: list[bool] = []
        self.watch = Watch(
            self._look, PLACES, self._is_busy, 30, self._leave, self._sleep, self.looks.append
        )

    async def _look(self) -> Output:
        match next(self.outputs, None):
            case None:
                raise asyncio.CancelledError
            case Exception() as error:
                raise error
            case asyncio.Event() as never:
                await never.wait()
                raise AssertionError("somebody set it")
            case output:
                return output

    def _is_busy(self) -> bool:
        self.busy -= 1
        return self.busy >= 0

    def _leave(self) -> None:
        self.left = True

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.states.append(self.watch.blind)

    async def run(self) -> "Scene":
        try:
            await self.watch.run()
        except asyncio.CancelledError:
            self.states.append(self.watch.blind)
        return self


async def test_while_it_sees_nothing_happens() -> None:
    scene = await Scene(SEEN, SEEN, SEEN).run()
    assert not scene.left
    assert scene.states == [False] * 4
    assert set(scene.slept) == {30}


@pytest.mark.parametrize("blind", [SEEN * 0, RuntimeError("the device is gone")])
async def test_a_server_that_stays_blind_leaves(blind) -> None:
    scene = await Scene(SEEN, *[blind] * BLIND_LOOKS).run()
    assert scene.left
    assert scene.slept == [30, LOOK_AGAIN_S, LOOK_AGAIN_S]


@pytest.mark.parametrize("first", [RuntimeError("the device is gone"), None, SEEN * np.nan])
async def test_a_server_that_is_blind_from_its_first_look_leaves(
    first, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "LOOK_TIMEOUT_S", 0.01)
    look = asyncio.Event() if first is None else first  # a look that never ends
    async with asyncio.timeout(60):
        scene = await Scene(*[look] * BLIND_LOOKS).run()
    assert scene.left
    assert scene.slept == [LOOK_AGAIN_S, LOOK_AGAIN_S]


async def test_the_first_output_that_came_is_what_others_are_compared_with() -> None:
    scene = await Scene(RuntimeError("not yet"), SEEN, SEEN * 2, SEEN).run()
    assert not scene.left
    assert scene.states == [True, False, True, False, False]


async def test_a_server_that_sees_again_stays() -> None:
    scene = await Scene(SEEN, SEEN * 0, SEEN * 0, SEEN, SEEN * 0, SEEN).run()
    assert not scene.left
    assert scene.states == [False, True, True, False, True, False, False]


async def test_it_waits_for_a_quiet_moment_but_not_for_ever() -> None:
    assert len((await Scene(SEEN, SEEN, busy=3).run()).slept) == 5
    assert len((await Scene(SEEN, SEEN, busy=10**9).run()).slept) == 1 + 2 * BUSY_ROUNDS + 1


async def test_a_blind_server_answers_nobody(serve, backend, jpeg: bytes) -> None:
    async with serve() as served:
        served.serving.watch.failed = 1
        refused = await served.detect(jpeg)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "blind")
        ready = await served.client.get("/health/ready")
        assert (ready.status_code, ready.json()) == (503, {"status": "blind"})
        assert (await served.client.get("/health/live")).status_code == 200
        served.serving.watch.failed = 0
        assert (await served.detect(jpeg)).status_code == 200


async def test_the_probe_goes_through_the_engine_and_notices(serve, backend) -> None:
    async with serve() as served:
        reference, head = await served.core.look_at_probe(), served.core.head
        assert seen_alike(await served.core.look_at_probe(), reference, head)
        backend.output = backend.output * 0
        assert not seen_alike(await served.core.look_at_probe(), reference, head)


async def test_a_process_that_gives_up_ends_with_a_failure(serve) -> None:
    async with serve() as served:
        server = Server(served.app, Settings(port=0))
        served.serving.watch.give_up()
        assert server.should_exit
        assert server.exit_status == BLIND_EXIT
