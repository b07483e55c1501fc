"""What `make bench-gpu` does where there is no GPU, too little time, or half of the runtimes."""

from pathlib import Path

from bench.gpu import MOST_S, ROUNDS, WAYS, rounds, speeds_in, table
from bench.serving.assets import ROOT

OLD = Path("/old")
FAST = {"engine": 3000.0, "path": 2400.0}


class Machine:
    """Measures at once, or in as long as it is told, and counts."""

    def __init__(self, takes_s: float = 0, fails: str = "") -> None:
        self.now = 0.0
        self.asked: list[tuple[str, Path]] = []
        self._takes_s, self._fails = takes_s, fails

    def clock(self) -> float:
        return self.now

    def measure(self, way, checkout, within_s):
        assert 0 < within_s <= MOST_S - self.now
        self.now += min(self._takes_s, within_s)
        self.asked.append((way.backend, checkout))
        return "it is not installed" if way.backend == self._fails else FAST

    def run(self, *checkouts):
        return rounds(checkouts, self.measure, clock=self.clock)


def test_without_a_gpu_nothing_is_run_and_everything_is_told() -> None:
    machine = Machine()
    found = rounds([ROOT], machine.measure, missing="there is no NVIDIA GPU here")
    assert len(found) == len(WAYS)
    assert set(found.values()) == {"there is no NVIDIA GPU here"}
    assert not machine.asked
    assert table(found).count("| not run: there is no NVIDIA GPU here | | |") == len(WAYS)


def test_old_and_new_take_turns_every_other_round_from_the_back() -> None:
    machine = Machine()
    found = machine.run(ROOT, OLD)
    assert len(machine.asked) == ROUNDS * len(WAYS) * 2
    assert [checkout for _, checkout in machine.asked[:2]] == [ROOT, OLD]
    assert [checkout for _, checkout in machine.asked[-2:]] == [OLD, ROOT]
    assert "| torch fp16, throughput | new | 3000 | 2400 | 0.80 |" in table(found)
    assert "| torch fp16, throughput | /old | 3000 | 2400 | 0.80 |" in table(found)


def test_what_cannot_be_had_is_asked_for_once_and_the_rest_is_measured() -> None:
    machine = Machine(fails="tensorrt")
    found = machine.run(ROOT)
    assert [backend for backend, _ in machine.asked].count("tensorrt") == 2  # its two profiles
    told = {way.backend: speeds for (way, _), speeds in found.items()}
    assert told == {"torch": FAST, "onnxruntime": FAST, "tensorrt": "it is not installed"}


def test_it_ends_within_ten_minutes_and_keeps_what_it_has() -> None:
    machine = Machine(takes_s=150)
    found = machine.run(ROOT, OLD)
    assert machine.now <= MOST_S
    measured = [speeds for speeds in found.values() if speeds == FAST]
    assert len(measured) == 4
    assert set(map(str, found.values())) == {str(FAST), "600 s were over"}


def test_speeds_are_read_as_yoloserve_prints_them() -> None:
    told = (
        "shapes on torch fp16 cuda\n"
        "engine alone    3215.4 images/s   p50    9.51 ms   p99   14.30 ms\n"
        "whole path       889.0 images/s   p50   32.80 ms   p99  111.00 ms\n"
        "whole / engine 0.28\n"
    )
    assert speeds_in(told) == {"engine": 3215.4, "path": 889.0}
    assert speeds_in("") == {}
