"""A server that stops seeing notices, says so, and leaves."""

import asyncio

import numpy as np
import pytest

from yoloserve.detections.postprocess import Output
from yoloserve.engine import watching
from yoloserve.engine.watching import BLIND_LOOKS, BUSY_ROUNDS, LOOK_AGAIN_S, Watch, seen_alike
from yoloserve.http.server import BLIND_EXIT, Server
from yoloserve.settings import Settings

SEEN = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)


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
    ],
)
def test_the_same_picture_gives_the_same_numbers(output: Output, alike: bool) -> None:
    assert seen_alike(output, SEEN) == alike


def test_a_network_that_never_said_anything_may_go_on_saying_nothing() -> None:
    assert seen_alike(SEEN * 0, SEEN * 0)
    assert not seen_alike(SEEN, SEEN * 0)


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
            self._look, self._is_busy, 30, self._leave, self._sleep, self.looks.append
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
        reference = await served.core.look_at_probe()
        assert seen_alike(await served.core.look_at_probe(), reference)
        backend.output = backend.output * 0
        assert not seen_alike(await served.core.look_at_probe(), reference)


async def test_a_process_that_gives_up_ends_with_a_failure(serve) -> None:
    async with serve() as served:
        server = Server(served.app, Settings(port=0))
        served.serving.watch.give_up()
        assert server.should_exit
        assert server.exit_status == BLIND_EXIT
