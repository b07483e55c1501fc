"""What a process costs, as the kernel says, and what the operator tells of itself."""

from __future__ import annotations

import os
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds since the process began, memory now and at most, in MiB."""

    cpu_s: float
    rss_mib: float
    peak_mib: float


def usage(pid: int) -> Usage:
    """Ask the kernel about the process `pid`."""
    numbers = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    told = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return Usage(
        cpu_s=(int(numbers[11]) + int(numbers[12])) / _TICKS,
        rss_mib=int(told["VmRSS"].split()[0]) / 1024,
        peak_mib=int(told["VmHWM"].split()[0]) / 1024,
    )


class Scrape:
    """The operator's metrics at one moment."""

    def __init__(self, port: int) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        self._samples = [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of `name` that have `labels`."""
        return sum(
            sample.value
            for sample in self._samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def buckets(self, name: str) -> dict[float, float]:
        """Return the cumulative buckets of a histogram by their upper bounds."""
        return {
            float(sample.labels["le"]): sample.value
            for sample in self._samples
            if sample.name == f"{name}_bucket"
        }


def quantile(before: Scrape, after: Scrape, name: str, share: float) -> float:
    """Return the bound of the bucket that the quantile of what was observed between falls in."""
    earlier = before.buckets(name)
    grown = {bound: n - earlier.get(bound, 0) for bound, n in after.buckets(name).items()}
    total = max(grown.values(), default=0.0)
    return min((bound for bound, n in grown.items() if n >= share * total), default=0.0)


def mean(before: Scrape, after: Scrape, name: str) -> float:
    """Return the mean of what a histogram observed between."""
    count = after.value(f"{name}_count") - before.value(f"{name}_count")
    return (after.value(f"{name}_sum") - before.value(f"{name}_sum")) / count if count else 0.0
