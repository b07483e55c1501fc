"""The chart's dashboards: their panels, and what these ask with the variables filled in."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FILES: Final = sorted(
    (Path(__file__).parents[1] / "charts" / "yolofleet" / "files" / "dashboards").glob("*.json")
)


@dataclass(frozen=True, slots=True)
class Query:
    """One that a panel asks."""

    board: str
    panel: str
    text: str

    def filled(self, variables: Mapping[str, str]) -> str:
        """Return it as Grafana sends it. Raises `KeyError` on a variable that has no value."""
        return re.sub(r"\$([a-z_]\w*)", lambda found: variables[found[1]], self.text)


def boards() -> dict[str, dict[str, Any]]:
    """Return each by its file's name."""
    return {file.stem: json.loads(file.read_text()) for file in FILES}


def panels(board: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return those that show something; rows are headings."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries() -> Iterator[Query]:
    """Return all that panels of all dashboards ask."""
    for name, board in boards().items():
        for panel in panels(board):
            for target in panel["targets"]:
                yield Query(name, panel["title"], target["expr"])
