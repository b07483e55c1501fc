"""The chart as it is released: its version, where its images are, and their digests."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import yaml

from cluster.paths import REPOSITORY, tools
from cluster.steps import run

FOLDER: Final = REPOSITORY / "charts" / "yolofleet"
NAME: Final = "yolofleet"


def registry_of_checkout() -> str:
    """Return where the chart of a checkout says that its images are."""
    return str(_read((FOLDER / "Chart.yaml").read_text())["annotations"]["yolofleet.io/registry"])


def metadata(
    checked_in: str, version: str, registry: str, digests: Mapping[str, str]
) -> dict[str, Any]:
    """Return the released Chart.yaml. digests: of the images of this release, by NAME:TAG.

    They are no values: those that `helm upgrade --reuse-values` brings would name former images.
    """
    chart = _read(checked_in)
    images = [
        {"name": image.replace(f":{version}", ""), "image": f"{registry}/{image}@{digest}"}
        for image, digest in digests.items()
    ]
    notes = {
        "yolofleet.io/registry": registry,
        "yolofleet.io/digests": json.dumps(digests),
        "artifacthub.io/images": yaml.safe_dump(images, sort_keys=False),
    }
    return {
        **chart,
        "version": version,
        "appVersion": version,
        "annotations": {**chart["annotations"], **notes},
    }


def package(chart: Mapping[str, Any], into: Path, *, made: datetime) -> Path:
    """Pack the chart with this Chart.yaml; the same bytes for the same content. Return the file."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = shutil.copytree(FOLDER, Path(scratch) / NAME)
        (copy / "Chart.yaml").write_text(yaml.safe_dump(dict(chart), sort_keys=False))
        run([tools().helm, "lint", "--strict", copy], log="release")
        run([tools().helm, "package", copy, "--destination", scratch], log="release")
        [packed] = Path(scratch).glob("*.tgz")
        target = into / packed.name
        target.write_bytes(repacked(packed.read_bytes(), made=made))
    return target


def repacked(archive: bytes, *, made: datetime) -> bytes:
    """Return a .tgz whose files are all of one time: helm stamps them with that of the packing."""
    out = io.BytesIO()
    seconds = int(made.timestamp())
    with (
        tarfile.open(fileobj=io.BytesIO(archive)) as old,
        gzip.GzipFile(fileobj=out, mode="wb", mtime=seconds) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as new,
    ):
        for member in sorted(old, key=lambda m: m.name):
            member.mtime = seconds
            new.addfile(member, old.extractfile(member))
    return out.getvalue()


def _read(text: str) -> dict[str, Any]:
    chart: dict[str, Any] = yaml.safe_load(text)
    return chart
