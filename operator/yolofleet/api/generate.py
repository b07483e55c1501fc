"""Writes the files that are generated from the types (`make generate`)."""

from pathlib import Path

from yolofleet.api import crd, reference
from yolofleet.api.names import GROUP, PLURAL

ROOT = Path(__file__).parents[3]


def files() -> dict[str, str]:
    """Return the text of each generated file by its path in the repository."""
    return {
        f"crds/{PLURAL}.{GROUP}.yaml": crd.rendered(),
        "charts/yolofleet/templates/crd.yaml": crd.chart_copy(),
        "operator/yolofleet/cli/defaults.json": crd.defaults(),
        "docs/reference/yolodetector.md": reference.rendered(),
    }


if __name__ == "__main__":
    for path, text in files().items():
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(text)
