"""A caller who hangs up ends the work for them, and nothing else."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from starlette.requests import Request

from yoloserve.http.callers import ClientGone, while_connected

GONE = {"type": "http.disconnect"}


class Caller:
    """A request whose client stays until it is told to hang up."""

    def __init__(self) -> None:
        self.hangs_up = asyncio.Event()
        self.request = Request({"type": "http"}, self._receive)

    async def _receive(self) -> dict[str, str]:
        await self.hangs_up.wait()
        return GONE


async def settled() -> None:
    """Let whatever is ready run; no time passes."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_an_answer_is_the_works_own_and_nobody_listens_after_it() -> None:
    caller = Caller()
    before = asyncio.all_tasks()
    assert await while_connected(caller.request, asyncio.sleep(0, "boxes")) == "boxes"
    caller.hangs_up.set()
    await settled()  # is not cancelled
    assert asyncio.all_tasks() == before


async def until_cancelled(ended: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        ended.append("work")


async def a_failure_instead(ended: list[str]) -> None:
    try:
        await until_cancelled(ended)
    except asyncio.CancelledError:
        raise ValueError("of one of several") from None


@pytest.mark.parametrize("work", [until_cancelled, a_failure_instead])
async def test_the_work_ends_before_it_is_said_that_the_client_is_gone(
    work: Callable[[list[str]], Awaitable[None]],
) -> None:
    caller, ended, this = Caller(), list[str](), asyncio.current_task()
    asyncio.get_running_loop().call_soon(caller.hangs_up.set)
    with pytest.raises(ClientGone):
        await while_connected(caller.request, work(ended))
    assert ended == ["work"]
    assert this is not None
    assert not this.cancelling()  # what the request does next is nobody's to cancel
    async with asyncio.timeout(60):
        await settled()


async def test_an_end_that_somebody_else_wants_is_theirs() -> None:
    caller, ended = Caller(), list[str]()
    asking = asyncio.create_task(while_connected(caller.request, until_cancelled(ended)))
    await settled()
    asking.cancel()
    caller.hangs_up.set()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert ended == ["work"]


async def test_an_answer_in_the_moment_of_hanging_up_cancels_nothing_later() -> None:
    caller = Caller()

    async def works() -> str:
        caller.hangs_up.set()  # heard at the earliest once this has ended
        return "boxes"

    assert await while_connected(caller.request, works()) == "boxes"
    await settled()
