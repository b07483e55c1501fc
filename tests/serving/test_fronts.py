"""Front processes: what one process promised holds across them, whoever dies or lies."""

import asyncio
import math
import os
import resource
import signal
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.sync.client import connect

from yoloserve.errors import InvalidImage
from yoloserve.fronts import engine_side, processes, wire
from yoloserve.fronts.engine_side import Lie, Session, routes_of
from yoloserve.fronts.front_side import Left, RemotePlace
from yoloserve.fronts.processes import Fronts
from yoloserve.fronts.slots import KEPT_BYTES, Memory, Slots

NOTHING = wire.Objects(b"", b"", b"")
LOOK = wire.Look(1, 160, 90, 0.25, 0.7, 300, None, False, 0, 0.001, 0.001, True)
ADMIT = wire.Admit(1, math.inf, "a client", "")
TIMES = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


class Engine:
    """The engine's side of one front, and what it says to it."""

    def __init__(self, served: Any) -> None:
        self.served = served
        self.slots = Slots(4, 64 * 64 * 3)
        self.said: list[Any] = []
        self.session = self.another()

    def another(self) -> Session:
        session = Session(
            self.served.serving, self.served.app, self.slots, routes_of(self.served.app)
        )
        session.send = self.said.append
        return session

    async def told(self, kind: type) -> Any:
        """Wait for a message of this kind."""
        while not (found := [each for each in self.said if isinstance(each, kind)]):  # noqa: ASYNC110
            await asyncio.sleep(0)
        return found[-1]

    def has_nothing_out(self) -> bool:
        serving = self.served.serving
        return (
            self.slots.free == self.slots.count
            and serving.core.admission.inside == 0
            and serving.streams.taken == 0
            and serving.core.room.free == serving.core.room.size
        )


@pytest.fixture
def engine_of(serve: Callable[..., Any]) -> Callable[..., Any]:
    @asynccontextmanager
    async def engine_of(**changes: Any) -> AsyncIterator[Engine]:
        async with serve(**changes) as served:
            engine = Engine(served)
            yield engine
            engine.session.end()
            engine.slots.close()

    return engine_of


# what they say


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=6), st.booleans())
def test_whatever_bytes_come_are_messages_or_told_to_be_none(pieces, framed) -> None:
    frames = wire.Frames(wire.ASKED, 1000)
    took: list[Any] = []
    for piece in pieces:
        data = wire.LENGTH.pack(len(piece)) + piece if framed else piece
        try:
            frames.feed(data, took.append)
        except wire.Broken:
            return
    assert all(isinstance(each, wire.Asked) for each in took)


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1.0])
@pytest.mark.parametrize("waited", [True, False])
def test_no_time_that_a_front_tells_spoils_a_sum(seconds, waited) -> None:
    told = (TIMES, seconds) if waited else ((*TIMES[1:], seconds), 0.0)
    with pytest.raises(wire.Broken):
        wire.Frames(wire.ASKED, 1000).feed(
            wire.frame(wire.Answered("request", *told, NOTHING, 1)), print
        )


@pytest.mark.parametrize("images", [-1, 0, 1025])
def test_no_number_of_pictures_that_a_front_tells_spoils_a_count(images) -> None:
    for said in (wire.Denied("overloaded", "request", images, 1), wire.Missed("queue", images)):
        with pytest.raises(wire.Broken):
            wire.Frames(wire.ASKED, 1000).feed(wire.frame(said), print)


def test_messages_are_read_wherever_they_are_cut() -> None:
    sent = [ADMIT, LOOK, wire.Leave(1), wire.Answered("request", TIMES, 0.0, NOTHING, 1)]
    written = b"".join(map(wire.frame, sent))
    for size in (1, 7, len(written)):
        frames, took = wire.Frames(wire.ASKED, 1000), list[Any]()
        for begin in range(0, len(written), size):
            frames.feed(written[begin : begin + size], took.append)
        assert took == sent


@pytest.mark.parametrize(
    "lies",
    [
        [LOOK],
        [ADMIT, LOOK, LOOK],
        [ADMIT, ADMIT],
        [wire.Stream(1, ""), wire.Stream(1, "")],
        [wire.Admit(1, math.nan, "", "")],
        [wire.Room(1, 10**9)],
        [wire.Room(1, 0)],
        [wire.Denied("ok", "request", 1, 1)],
        [wire.Denied("invented", "request", 1, 1)],
        [wire.Denied("overloaded", "invented", 1, 1)],
        [wire.Missed("invented", 1)],
        [wire.Cut("invented")],
        [wire.Served("GET", "/invented", 200, 0.1)],
        [wire.Served("GET", "", 10**6, 0.1)],
        [wire.Answered("request", TIMES, 0.0, wire.Objects(bytes(16), bytes(4), b""), 1)],
        [wire.Answered("request", TIMES, 0.0, wire.Objects(bytes(15), bytes(4), bytes(8)), 1)],
        [
            wire.Answered(
                "request", TIMES, 0.0, wire.Objects(bytes(16), bytes(4), np.int64(3).tobytes()), 1
            )
        ],
        [wire.Skipped("gate-12345678", "invented", 1)],
    ],
    ids=lambda lies: "-".join(type(each).__name__ for each in lies),
)
async def test_a_front_that_lies_is_not_believed(engine_of, lies) -> None:
    async with engine_of() as engine:
        *before, lie = lies
        for each in before:
            engine.session.received(each)
        with pytest.raises((Lie, ValueError)):
            engine.session.received(lie)
        engine.session.end()
        assert engine.has_nothing_out()
        assert "invented" not in engine.served.serving.metrics.text().decode()


# what they hold


async def test_what_a_front_held_that_died_is_there_for_others(engine_of, backend) -> None:
    """In mid-write, in the network, with a stream, and while it waited for room."""
    async with engine_of(max_pixels=1000 * 1000) as engine:
        session = engine.session
        backend.may_run.clear()
        session.received(ADMIT)
        session.received(LOOK)
        await asyncio.to_thread(backend.started.wait, 60)
        session.received(wire.Admit(2, math.inf, "a client", "writes"))
        session.received(wire.Stream(3, "a client"))
        session.received(wire.Room(4, 10**6))
        await engine.told(wire.Done)
        session.received(wire.Room(5, 10**6))
        await asyncio.sleep(0)
        session.end()
        await asyncio.sleep(0)
        assert engine.has_nothing_out()
        backend.may_run.set()
        engine.said.clear()
        other = engine.another()
        other.received(ADMIT)
        other.received(LOOK)
        assert len((await engine.told(wire.Found)).found.read()) == 2
        other.end()
        assert engine.has_nothing_out()


async def test_a_picture_in_whose_place_nobody_waits_is_not_answered(engine_of, backend) -> None:
    async with engine_of() as engine:
        backend.may_run.clear()
        for message in (ADMIT, LOOK, wire.Leave(1)):
            engine.session.received(message)
        backend.may_run.set()
        await engine.served.core.batcher.close()
        assert engine.has_nothing_out()
        assert not any(isinstance(each, wire.Found) for each in engine.said)


async def test_without_memory_for_another_picture_nobody_is_let_in(engine_of) -> None:
    async with engine_of() as engine:
        for number in range(5):
            engine.session.received(wire.Admit(number, math.inf, "", str(number)))
        assert [type(each) for each in engine.said] == [wire.Placed] * 4 + [wire.Refused]
        assert engine.served.core.admission.inside == 4


def test_memory_that_is_not_used_again_goes_back_and_cannot_be_cut_off() -> None:
    slots = Slots(3, KEPT_BYTES // 2)
    taken = [slots.take() for _ in range(4)]
    assert taken == [0, 1, 2, None]
    for slot in (0, 1, 2):
        slots.memory[slot][:9] = 7
        slots.give(slot)
    assert [slots.memory[slot][0] for slot in (0, 1, 2)] == [7, 7, 0]
    with pytest.raises(PermissionError):
        os.ftruncate(slots.descriptor, 0)
    other = Memory(slots.descriptor, slots.count, slots.slot_bytes)
    other[1][3] = 9
    assert slots.memory[1][3] == 9
    slots.close()


async def test_what_is_lent_in_this_moment_is_given_back(engine_of) -> None:
    """Its task has done its work, and is not gone yet."""
    async with engine_of() as engine:
        room = engine.served.core.room
        engine.session.received(wire.Room(1, 1000))
        while room.free == room.size:  # noqa: ASYNC110 (of this loop alone)
            await asyncio.sleep(0)
        engine.session.received(wire.Leave(1))
        assert room.free == room.size


async def test_more_questions_than_can_be_answered_are_refused_and_no_lie(
    engine_of, monkeypatch
) -> None:
    monkeypatch.setattr(engine_side, "MOST_AT_ONCE", 1)
    async with engine_of() as engine:
        for number in (1, 2):
            ask = wire.Ask(number, "GET", "/health/live", b"", [], None, crowded=False)
            engine.session.received(ask)
        assert (await engine.told(wire.Refused)).id == 2
        assert (await engine.told(wire.Told)).status == 200


async def test_a_quota_may_be_of_any_size(engine_of) -> None:
    async with engine_of() as engine:
        sent = wire.frame(wire.Spend(1, "a client", math.inf, 1, 0))
        wire.Frames(wire.ASKED, 1000).feed(sent, engine.session.received)
        assert isinstance(engine.said[-1], wire.Done)


async def test_a_client_may_have_any_name(engine_of) -> None:
    """As long as a token, and no Unicode: the front that says it is not ended for that."""
    async with engine_of() as engine:
        for name in ("x" * 70_000, "a \ud800"):
            sent = wire.Admit(len(name), math.inf, wire.name(name), "")
            wire.Frames(wire.ASKED, 10**6).feed(wire.frame(sent), engine.session.received)
        assert [type(each) for each in engine.said] == [wire.Placed] * 2


async def test_a_place_is_left_once_the_thread_that_writes_there_is_done() -> None:
    said: list[Any] = []
    place = RemotePlace(5, np.zeros(9, np.uint8), said.append)
    may_end, writes = threading.Event(), threading.Event()

    def write() -> None:
        with place.writing() as memory:
            writes.set()
            assert may_end.wait(60)
            memory[:] = 1

    writing = asyncio.create_task(asyncio.to_thread(write))
    await asyncio.to_thread(writes.wait, 60)
    place.leave()
    assert said == []
    may_end.set()
    await writing
    await asyncio.sleep(0)
    assert said == [wire.Leave(5)]
    place.leave()
    assert said == [wire.Leave(5)]
    with pytest.raises(Left), place.writing():
        pass


async def test_a_place_in_which_writing_failed_is_left_as_well() -> None:
    """A stranger with a damaged picture, who hangs up, would fill the server for good."""
    said: list[Any] = []
    place = RemotePlace(7, np.zeros(9, np.uint8), said.append)
    may_end, writes = threading.Event(), threading.Event()

    def fail() -> None:
        with place.writing():
            writes.set()
            assert may_end.wait(60)
            raise InvalidImage("it is cut short")

    failing = asyncio.create_task(asyncio.to_thread(fail))
    await asyncio.to_thread(writes.wait, 60)
    place.leave()
    may_end.set()
    with pytest.raises(InvalidImage):
        await failing
    await asyncio.sleep(0)
    assert said == [wire.Leave(7)]


# their processes


class Dying:
    """A front's process that ends a while after its socket has closed."""

    def __init__(self) -> None:
        self.may_end, self.killed = threading.Event(), False

    def kill(self) -> None:
        self.killed = True
        self.may_end.set()

    def wait(self, timeout: float | None = None) -> int:
        if not self.may_end.wait(timeout):
            raise subprocess.TimeoutExpired("front", timeout or 0)
        return 0


def a_front(process: Dying, session: Any = None) -> processes._Front:
    sockets: list[Any] = [SimpleNamespace(close=lambda: None) for _ in range(2)]
    return processes._Front(0, process, *sockets, 0, 0, session=session)  # type: ignore[arg-type]


async def test_what_a_front_held_is_given_back_once_its_process_is_gone(monkeypatch) -> None:
    """Until then a thread of it may write where somebody else's picture would be."""
    monkeypatch.setattr(processes, "ENDS_S", 60.0)
    fronts, process = Fronts(1, 1), Dying()
    ended: list[bool] = []
    session = SimpleNamespace(end=lambda: ended.append(process.may_end.is_set()))
    fronts._fronts[0], fronts._finishing = a_front(process, session), True
    losing = asyncio.create_task(fronts._lost(fronts._fronts[0], None))
    for _ in range(9):
        await asyncio.sleep(0)
    process.may_end.set()
    await losing
    assert ended == [True]
    assert not fronts._fronts
    assert not process.killed


@pytest.mark.parametrize("why", [Lie("a lie"), None], ids=["a lie", "it hangs in its end"])
async def test_a_front_that_is_of_no_use_any_more_is_ended(monkeypatch, why) -> None:
    monkeypatch.setattr(processes, "ENDS_S", 0.01)
    fronts, process = Fronts(1, 1), Dying()
    fronts._fronts[0], fronts._finishing = a_front(process), True
    await fronts._lost(fronts._fronts[0], why)
    assert process.killed
    assert not fronts._fronts


async def test_a_server_that_is_told_to_end_before_it_began_waits_for_no_front() -> None:
    fronts, process = Fronts(1, 1), Dying()
    fronts._fronts[0] = a_front(process)
    await fronts.finish(within_s=math.inf)
    assert process.killed
    assert not fronts._fronts


async def test_a_front_that_cannot_be_started_now_is_started_later(monkeypatch) -> None:
    """As without a file or a process left."""
    monkeypatch.setattr(processes, "BACK_OFF_S", (0.0, 0.0))
    fronts, process = Fronts(1, 1), Dying()
    process.may_end.set()
    fronts._fronts[0] = front = a_front(process)
    failures = iter([OSError("no file"), OSError("no process")])
    welcomed: list[Any] = []

    def spawn(_: Fronts, __: int) -> Any:
        for failure in failures:
            raise failure
        return front

    async def welcome(_: Fronts, front: Any) -> None:
        welcomed.append(front)

    monkeypatch.setattr(Fronts, "_spawn", spawn)
    monkeypatch.setattr(Fronts, "_welcome", welcome)
    await fronts._lost(front, None)
    assert welcomed == [front]
    assert fronts._fronts == {0: front}


def children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def is_there(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def eventually(true: Callable[[], Any]) -> None:
    until = time.monotonic() + 120
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture
def fronted(run_server, make_model) -> Any:
    """A server with two fronts, and its address."""
    server = run_server(model=make_model(), front_processes=2)
    server.url = server.logged("ready")["url"]
    return server


def requests(url: str, outcome: str = "ok") -> float:
    text = httpx.get(url + "metrics", timeout=60).text
    line = f'yoloserve_requests_total{{outcome="{outcome}",source="request"}} '
    return next((float(e.removeprefix(line)) for e in text.split("\n") if e.startswith(line)), 0)


@pytest.fixture
def clients(fronted) -> Iterator[list[HTTPConnection]]:
    """Four connections, two for each front."""
    address = urlsplit(fronted.url)
    connections = [HTTPConnection(address.hostname, address.port, timeout=60) for _ in range(4)]
    for each in connections:
        each.connect()
    yield connections
    for each in connections:
        each.close()


def ask(client: HTTPConnection, jpeg: bytes) -> int:
    client.request("POST", "/v1/detect", jpeg)
    answer = client.getresponse()
    answer.read()
    return answer.status


def test_fronts_answer_as_one_server_and_what_they_count_is_one_number(
    fronted, clients, jpeg
) -> None:
    with ThreadPoolExecutor(len(clients)) as pool:
        statuses = pool.map(lambda client: [ask(client, jpeg) for _ in range(5)], clients)
        assert {status for each in statuses for status in each} == {200}
    assert requests(fronted.url) == 20
    fronts = children(fronted.process.pid)
    assert len(fronts) == 2

    def each_has_two() -> bool:
        return [sockets(pid) for pid in fronts] == [2, 2]

    eventually(each_has_two)
    text = httpx.get(fronted.url + "metrics", timeout=60).text
    assert "yoloserve_fronts 2.0" in text
    assert "yoloserve_fronts_started_total 2.0" in text


def sockets(pid: int) -> int:
    """Count the connections of TCP that a process has."""
    inodes = {line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]}
    count = 0
    for each in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(each)
        except FileNotFoundError:
            continue
        count += target.startswith("socket:[") and target[8:-1] in inodes
    return count


def test_a_front_that_dies_loses_its_own_requests_alone_and_is_replaced(
    fronted, clients, jpeg
) -> None:
    assert {ask(client, jpeg) for client in clients} == {200}
    counted = requests(fronted.url)
    doomed, other = children(fronted.process.pid)
    os.kill(doomed, signal.SIGKILL)
    assert fronted.logged("a front ended; it is started anew")["exit"] == -signal.SIGKILL
    answers = []
    for client in clients:
        try:
            answers.append(ask(client, jpeg))
        except (ConnectionError, OSError):
            answers.append(0)
    assert sorted(answers) == [0, 0, 200, 200]

    def ready() -> bool:
        return httpx.get(fronted.url + "health/ready", timeout=60).status_code == 200

    eventually(ready)
    assert requests(fronted.url) == counted + 2
    pids = children(fronted.process.pid)
    assert len(pids) == 2
    assert other in pids
    assert (
        "yoloserve_fronts_started_total 3.0" in httpx.get(fronted.url + "metrics", timeout=60).text
    )


def test_streams_are_shared_out_as_connections_are(fronted, jpeg) -> None:
    address = fronted.url.replace("http", "ws") + "v1/stream"
    with ExitStack() as stack:
        for _ in range(4):
            stream = stack.enter_context(connect(address, open_timeout=60))
            stream.send(jpeg)
            stream.recv(timeout=60)
        fronts = children(fronted.process.pid)
        eventually(lambda: [sockets(pid) for pid in fronts] == [2, 2])


def test_a_front_that_had_no_file_for_a_connection_takes_the_next(fronted, jpeg) -> None:
    fronts = children(fronted.process.pid)
    before = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in fronts}
    for pid in fronts:
        used = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, before[pid][1]))
    address = urlsplit(fronted.url)
    lost = [socket.create_connection((address.hostname, address.port)) for _ in range(4)]
    assert [each.recv(1) for each in lost] == [b""] * 4
    for each in lost:
        each.close()
    for pid in fronts:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before[pid])
    for _ in range(4):
        assert httpx.post(fronted.url + "v1/detect", content=jpeg, timeout=60).status_code == 200


def test_a_front_that_is_ended_by_itself_finishes_and_gets_no_more(
    fronted, clients, jpeg, begin
) -> None:
    leaving, _ = children(fronted.process.pid)
    for client in clients:
        begin(client, jpeg)
    text = f"http_server_active_requests {len(clients) + 1}.0"
    eventually(lambda: text in httpx.get(fronted.url + "metrics", timeout=60).text)
    os.kill(leaving, signal.SIGTERM)
    eventually(lambda: httpx.get(fronted.url + "health/ready", timeout=60).status_code == 503)
    for _ in range(8):
        assert httpx.get(fronted.url + "health/live", timeout=60).status_code == 200
    for client in clients:
        client.send(jpeg[100:])
        assert client.getresponse().status == 200
    eventually(lambda: httpx.get(fronted.url + "health/ready", timeout=60).status_code == 200)
    assert leaving not in children(fronted.process.pid)


@pytest.mark.parametrize("frozen", [False, True], ids=["they run", "one is frozen"])
def test_no_front_outlives_the_engines_process(fronted, clients, jpeg, frozen) -> None:
    fronts = children(fronted.process.pid)
    if frozen:
        os.kill(fronts[0], signal.SIGSTOP)
    fronted.process.kill()
    eventually(lambda: not any(map(is_there, fronts)))


def test_a_request_under_way_at_the_end_gets_its_answer_from_a_front(fronted, jpeg, begin) -> None:
    fronts = children(fronted.process.pid)
    address = urlsplit(fronted.url)
    connection = HTTPConnection(address.hostname, address.port, timeout=60)
    begin(connection, jpeg)
    text = "http_server_active_requests 2.0"  # it, and who asks
    eventually(lambda: text in httpx.get(fronted.url + "metrics", timeout=60).text)
    fronted.terminate()
    fronted.logged("draining")
    connection.send(jpeg[100:])
    assert connection.getresponse().status == 200
    connection.close()
    assert fronted.process.wait(60) == 0
    assert not any(map(is_there, fronts))


def test_a_port_that_is_taken_is_told_and_no_front_stays(run_server, make_model) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = run_server(model=make_model(), front_processes=1, port=taken.getsockname()[1])
        assert server.logged("no port")["port"] == taken.getsockname()[1]
        assert server.process.wait(60) == 3
