"""The map of the code is drawn from its real imports."""

import re
from pathlib import Path

import grimp
import pytest

REPOSITORY = Path(__file__).parents[2]
MAP = (REPOSITORY / "docs" / "map.md").read_text()


def room_of(module: str) -> str:
    """Return the room of a module; of the package itself, nothing."""
    return module.split(".")[1] if "." in module else ""


def drawn(package: str) -> dict[str, set[str]]:
    """Return by room which others its modules import."""
    graph = grimp.build_graph(package)
    rooms: dict[str, set[str]] = {room_of(m): set() for m in graph.modules if room_of(m)}
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            if (room := room_of(module)) and (other := room_of(imported)) not in ("", room):
                rooms[room].add(other)
    return rooms


def told(heading: str) -> dict[str, set[str]]:
    """Return the same as the table below `heading` has it."""
    section = MAP.partition(heading)[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|$", section, re.MULTILINE)
    return {room: set(re.findall(r"`(\w+)`", imports)) for room, imports in rows}


@pytest.mark.parametrize(
    ("package", "heading"), [("yolofleet", "## The operator"), ("yoloserve", "## The server")]
)
def test_each_room_is_on_the_map_with_what_it_imports(package: str, heading: str) -> None:
    assert told(heading) == drawn(package)


def test_every_file_on_the_map_is_there() -> None:
    roots = [REPOSITORY / "operator/yolofleet", REPOSITORY / "serving_image/yoloserve"]
    ways = [line for line in MAP.splitlines() if "→" in line]
    for named in re.findall(r"`([\w/]+(?:\.py|/))`", "\n".join(ways)):
        assert any((root / named).exists() for root in roots), named
