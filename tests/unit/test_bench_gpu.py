"""What `make bench-gpu` does where there is no GPU, too little time, or half of the runtimes."""

from pathlib import Path

from bench.gpu.__main__ import MEASURED, MOST_S, OVER, ROUNDS, rounds
from bench.gpu.report import of_runtimes, of_servers
from bench.gpu.runtimes import WAYS, Way
from bench.gpu.served import Served
from bench.serving.assets import ROOT
from bench.serving.measure import speeds_in

OLD = Path("/old")
FAST = {"engine": 3000.0, "path": 2400.0}
BUSY = {
    "per_s": 1500.0,
    "cpu_ms": 4.0,
    "busiest_ms": 1.0,
    "p99_ms": 90.0,
    "refused": 0.0,
    "clients_busy": 0.5,
} | {
    f"{name}_{share}": value
    for share in ("1.2", "2")
    for name, value in (("goodput", 0.97), ("late", 0.001))
}


class Machine:
    """Measures at once, or in as long as it is told, and counts."""

    def __init__(self, takes_s: float = 0, fails: str = "") -> None:
        self.now = 0.0
        self.asked: list[tuple[Way | Served, Path]] = []
        self._takes_s, self._fails = takes_s, fails

    def clock(self) -> float:
        return self.now

    def measure(self, way, checkout, within_s):
        assert 0 < within_s <= MOST_S - self.now
        self.now += min(self._takes_s, within_s)
        self.asked.append((way, checkout))
        if isinstance(way, Served):
            return BUSY
        return "it is not installed" if way.backend == self._fails else FAST

    def run(self, *checkouts):
        return rounds(checkouts, self.measure, clock=self.clock)


def test_without_a_gpu_nothing_is_run_and_everything_is_told() -> None:
    machine = Machine()
    found = rounds([ROOT], machine.measure, missing="there is no NVIDIA GPU here")
    assert len(found) == len(MEASURED)
    assert set(found.values()) == {"there is no NVIDIA GPU here"}
    assert not machine.asked
    assert of_runtimes(found).count("| not run: there is no NVIDIA GPU here | | |") == len(WAYS)
    assert of_servers(found).count("| not run: there is no NVIDIA GPU here | | |") == 4


def test_old_and_new_take_turns_every_other_round_from_the_back() -> None:
    machine = Machine()
    found = machine.run(ROOT, OLD)
    both = [way for way in MEASURED if isinstance(way, Way) or way == Served()]
    assert len(machine.asked) == ROUNDS * (2 * len(both) + len(MEASURED) - len(both))
    assert [checkout for _, checkout in machine.asked[:2]] == [ROOT, OLD]
    assert [checkout for _, checkout in machine.asked[-2:]] == [OLD, ROOT]
    assert {way for way, checkout in machine.asked if checkout == OLD} == set(both)
    assert "| torch fp16, throughput | new | 3000 | 2400 | 0.80 |" in of_runtimes(found)
    assert "| torch fp16, throughput | /old | 3000 | 2400 | 0.80 |" in of_runtimes(found)


def test_what_cannot_be_had_is_asked_for_once_and_the_rest_is_measured() -> None:
    machine = Machine(fails="tensorrt")
    found = machine.run(ROOT)
    benched = [way.backend for way, _ in machine.asked if isinstance(way, Way)]
    assert benched.count("tensorrt") == 2  # its two profiles
    told = {way.backend: speeds for (way, _), speeds in found.items() if isinstance(way, Way)}
    assert told == {"torch": FAST, "onnxruntime": FAST, "tensorrt": "it is not installed"}


def test_it_ends_within_ten_minutes_and_keeps_what_it_has() -> None:
    machine = Machine(takes_s=150)
    found = machine.run(ROOT, OLD)
    assert machine.now <= MOST_S
    measured = [way for (way, _), speeds in found.items() if isinstance(speeds, dict)]
    assert measured == [MEASURED[0], MEASURED[0], Served(), Served()]
    assert {speeds for speeds in found.values() if isinstance(speeds, str)} == {OVER}


def test_servers_are_held_against_the_engine_alone():
    told = of_servers(Machine().run(ROOT)).splitlines()
    assert told[0].endswith("| goodput_1.2 | late_1.2 | goodput_2 | late_2 | clients_busy |")
    numbers = "1500 | 0.5 | 4 | 1 | 90 | 0 | 0.97 | 0.001 | 0.97 | 0.001 | 0.5"
    assert told[2] == f"| one server | new | {numbers} |"
    assert [line.split(" | ")[0] for line in told[3:]] == [
        "| 4 servers",
        "| one server with 4 fronts",
        "| one server with 8 fronts",
    ]


def test_a_server_is_of_the_checkout_and_as_many_as_it_is_called():
    server = Served(replicas=4).server(OLD, Path("/cache"))
    assert "PYTHONPATH=/old/serving_image" in server.arguments
    assert "--front-processes" not in server.arguments
    assert server.replicas == 4
    assert Served(fronts=8).server(ROOT, Path("/c")).arguments[-2:] == ("--front-processes", "8")


def test_speeds_are_read_as_yoloserve_prints_them() -> None:
    told = (
        "shapes on torch fp16 cuda\n"
        "engine alone    3215.4 images/s   p50    9.51 ms   p99   14.30 ms\n"
        "whole path       889.0 images/s   p50   32.80 ms   p99  111.00 ms\n"
        "whole / engine 0.28\n"
    )
    assert speeds_in(told) == {"engine": 3215.4, "path": 889.0}
    assert speeds_in("") == {}
