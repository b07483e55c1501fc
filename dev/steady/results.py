"""What pytest's JUnit reports say: which tests failed, and how long each took."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from xml.etree import ElementTree


@dataclass(frozen=True, slots=True)
class Result:
    """One test in one run. seconds: its fixtures' time with its own. why: empty if it passed."""

    name: str
    seconds: float
    why: str = ""

    @property
    def folder(self) -> str:
        """The folder below `tests` that it is in."""
        return self.name.split("/")[1] if "/" in self.name else self.name


def read(report: Path) -> list[Result]:
    """Return what a JUnit report says, in its order."""
    return [_result(case) for case in ElementTree.parse(report).iter("testcase")]


def _result(case: ElementTree.Element) -> Result:
    where, name = case.get("classname", ""), case.get("name", "")
    path, _, inside = where.replace(".", "/").partition("/Test")
    wrong = [*case.findall("failure"), *case.findall("error")]
    return Result(
        "::".join(filter(None, [path + ".py", inside and f"Test{inside}", name])),
        float(case.get("time", 0.0)),
        "; ".join(each.get("message", each.tag).partition("\n")[0] for each in wrong),
    )


def failures(runs: Sequence[Sequence[Result]]) -> Mapping[str, Mapping[int, str]]:
    """Return of each test that ever failed, in which runs (from 1) and why."""
    found: dict[str, dict[int, str]] = defaultdict(dict)
    for number, run in enumerate(runs, 1):
        for one in run:
            if one.why:
                found[one.name][number] = one.why
    return found


def by_folder(runs: Sequence[Sequence[Result]]) -> list[tuple[str, int, float, float, float]]:
    """Return for each folder its tests, and the least, median and most seconds of a run."""
    folders = sorted({one.folder for run in runs for one in run})
    rows = []
    for folder in folders:
        ours = [[one for one in run if one.folder == folder] for run in runs]
        took = [sum(one.seconds for one in run) for run in ours]
        rows.append((folder, max(map(len, ours)), min(took), median(took), max(took)))
    return rows


def slowest(runs: Iterable[Sequence[Result]], count: int) -> list[tuple[str, float]]:
    """Return the tests whose median is highest, and these medians in seconds."""
    took: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        for one in run:
            took[one.name].append(one.seconds)
    medians = {name: median(each) for name, each in took.items()}
    return sorted(medians.items(), key=lambda item: -item[1])[:count]
