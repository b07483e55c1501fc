"""The shape of the code, now or at a revision: `python -m shape [REVISION …]` prints a table.

Of each package: modules and lines, imports between rooms that point back up (those whose removal
leaves no circle of rooms), modules in a circle, and the longest functions. For rooms see
`docs/map.md`.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import grimp

PACKAGES: Final = {"yolofleet": "operator", "yoloserve": "serving_image"}
REPOSITORY: Final = Path(__file__).parents[1]
LONG: Final = 50  # lines
MEASURES: Final = {
    "modules": "modules",
    "lines": "lines",
    "back_up": "imports between rooms that point back up",
    "circular": "modules in a circle of imports",
    "long": f"functions of {LONG} lines and more",
    "longest": "the longest function, in lines",
}


@dataclass(frozen=True)
class Shape:
    """One package at one time."""

    modules: int
    lines: int
    back_up: int
    circular: int
    long: int
    longest: int


def shape(package: str, source: Path) -> Shape:
    """Measure `package`, which lies in the folder `source`. It is read, and nothing of it runs."""
    sys.path.insert(0, str(source))
    try:
        graph = grimp.build_graph(package, cache_dir=None, exclude_type_checking_imports=True)
    finally:
        sys.path.remove(str(source))
    files = sorted((source / package).rglob("*.py"))
    lengths = [n for file in files for n in functions(file.read_text())]
    return Shape(
        modules=len(graph.modules),
        lines=sum(len(file.read_text().splitlines()) for file in files),
        back_up=len(graph.nominate_cycle_breakers(package)),
        circular=sum(_in_a_circle(graph, module) for module in graph.modules),
        long=sum(length >= LONG for length in lengths),
        longest=max(lengths, default=0),
    )


def _in_a_circle(graph: grimp.ImportGraph, module: str) -> bool:
    imported = graph.find_modules_directly_imported_by(module)
    return any(graph.chain_exists(importer=each, imported=module) for each in imported)


def functions(source: str) -> Iterator[int]:
    """Return how long each function is."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield (node.end_lineno or node.lineno) - node.lineno + 1


def at(revision: str, into: Path) -> Path:
    """Unpack the sources of `revision` below `into`."""
    command = ["git", "archive", revision, *PACKAGES.values()]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(into, filter="data")
    return into


def measured(root: Path) -> dict[str, dict[str, int]]:
    """Measure both packages below `root`."""
    return {package: asdict(shape(package, root / folder)) for package, folder in PACKAGES.items()}


def of(revision: str) -> dict[str, dict[str, int]]:
    """Measure a revision, in a process of its own: where a package lies is looked up once."""
    with tempfile.TemporaryDirectory() as folder:
        root = str(at(revision, Path(folder)))
        command = [sys.executable, "-m", "shape", "--below", root]
        done = subprocess.run(command, capture_output=True, check=True, text=True)
    found: dict[str, dict[str, int]] = json.loads(done.stdout)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m shape", description=__doc__)
    parser.add_argument("revisions", nargs="*", metavar="REVISION", help="before the tree as it is")
    parser.add_argument("--below", type=Path, metavar="DIR", help="measure this tree, as JSON")
    asked = parser.parse_args()
    if asked.below:
        print(json.dumps(measured(asked.below)))
        return
    columns = {revision: of(revision) for revision in asked.revisions}
    columns["now"] = measured(REPOSITORY)
    print(f"| | {' | '.join(columns)} |\n| --- |{' ---: |' * len(columns)}")
    for package in PACKAGES:
        for measure, words in MEASURES.items():
            cells = (f"{column[package][measure]:,}" for column in columns.values())
            print(f"| {package}: {words} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
