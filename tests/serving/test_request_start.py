"""A gateway's stamp: what waited before the server has waited."""

from types import SimpleNamespace
from typing import Any

import pytest

from yoloserve.access.clients import Client
from yoloserve.http.callers import Caller
from yoloserve.http.request_start import waited_s
from yoloserve.scheduling.admission import Flow

NOW = 1_764_440_000.0


@pytest.mark.parametrize(
    ("stamps", "waited"),
    [
        ([], None),
        (["t=1764439999.750"], 0.25),
        (["t=1764440000"], 0.0),
        (["t=1764439990.000"], 10.0),
        (["t=1764439989.999"], None),  # too old
        (["t=1764440000.001"], None),  # of the future
        (["t=1764439999.750", "t=1764439999.750"], None),  # one of them is the caller's
        (["t=1764439999.750, t=1764439999.750"], None),
        (["1764439999.750"], None),
        (["t=1764439999750"], None),  # milliseconds
        (["t=-1"], None),
        (["t=nan"], None),
        (["t=1e9"], None),
        (["t=" + "9" * 400], None),
        (["t=１７６４４３９９９９"], None),
        (["t=%START_TIME(%s.%3f)%"], None),  # a gateway that does not know what to put there
        ([""], None),
    ],
)
def test_a_stamp_is_a_moment_of_the_last_ten_seconds(
    stamps: list[str], waited: float | None
) -> None:
    assert waited_s(stamps, NOW) == waited


@pytest.mark.parametrize(
    ("asked_s", "images", "at", "hurried"),
    [(None, 1, 105.0, False), (None, 2, 110.0, False), (2.0, 1, 102.0, True)],
)
def test_what_is_stamped_has_its_whole_deadline_from_there(
    asked_s: float | None, images: int, at: float, hurried: bool
) -> None:
    detector: Any = SimpleNamespace(clock=lambda: 104.0, deadline_s=5.0)
    caller = Caller(Client("x"), Flow("x"), arrived=100.0, asked_s=asked_s, stamped=True)
    assert caller.deadline(detector, images) == (at, hurried)


@pytest.mark.parametrize(
    ("trusted", "stamp", "status"),
    [
        (True, "t=1764439999.600", 504),
        (True, "t=1764439999.900", 200),
        (True, "t=1764439980.000", 200),  # too old to be meant
        (False, "t=1764439999.600", 200),
    ],
)
async def test_what_waited_for_longer_than_its_deadline_is_refused_where_stamps_are_trusted(
    serve, clock, jpeg: bytes, trusted: bool, stamp: str, status: int
) -> None:
    async with serve(clock=clock, deadline_ms=300, trust_request_start=trusted) as served:
        served.asked.wall_clock = lambda: NOW
        answer = await served.detect(jpeg, **{"X-Request-Start": stamp})
        assert answer.status_code == status
        if status == 504:
            assert answer.json()["error"]["code"] == "deadline_exceeded"
            assert 'yoloserve_deadline_misses_total{at="arrival"} 1.0' in (
                (await served.client.get("/metrics")).text
            )


async def test_of_two_stamps_none_is_believed(serve, clock, jpeg: bytes) -> None:
    async with serve(clock=clock, deadline_ms=300, trust_request_start=True) as served:
        served.asked.wall_clock = lambda: NOW
        stamps = [("x-request-start", "t=1764439999.000")] * 2
        answer = await served.client.post("/v1/detect", content=jpeg, headers=stamps)
        assert answer.status_code == 200
