"""What is in an image, as CycloneDX: no scanner, but what pip and dpkg themselves know.

Everything that pip installed has to be in the lock at that version, or nothing is released: the
bill is of what was built, and the lock is what was meant. Pure; `read` alone runs the image.
"""

from __future__ import annotations

import json
import re
import subprocess
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from release.errors import WrongResult

LOCKED: Final = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", re.MULTILINE)
READER: Final = (Path(__file__).with_name("inventory.py")).read_text()


@dataclass(frozen=True, slots=True)
class Package:
    """A Python distribution as its metadata names it."""

    name: str
    version: str
    license: str = ""  # an SPDX expression, where its author gives one


@dataclass(frozen=True, slots=True)
class Inventory:
    """What an image says of itself."""

    python: str
    system: str  # ID-VERSION_ID of its distribution, such as debian-12
    dpkg: str  # /var/lib/dpkg/status
    packages: tuple[Package, ...]  # of the product's own environment
    beside: tuple[Package, ...]  # what the base image brought for its own Python

    @classmethod
    def parse(cls, text: str) -> Inventory:
        """Read what `inventory.py` printed inside the image."""
        raw: dict[str, Any] = json.loads(text)
        packages, beside = (
            tuple(Package(*row) for row in raw[part]) for part in ("packages", "beside")
        )
        return cls(raw["python"], raw["system"], raw["dpkg"], packages, beside)


def read(image: str, modules: Sequence[str]) -> Inventory:
    """Ask an image that the engine has what is in it. Raises WrongResult unless `modules` import.

    All as the image's own user, who may not read what root may.
    """
    done = subprocess.run(
        ["docker", "run", "--rm", "--network=none", "--interactive", "--entrypoint=python",
         image, "-", *modules],
        input=READER, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise WrongResult(f"{image} does not start: a module fails in it.\n{done.stderr.strip()}")
    return Inventory.parse(done.stdout)


def beyond(lock: str, packages: Iterable[Package]) -> list[str]:
    """Return what is installed and not in the lock at that version, as NAME==VERSION."""
    meant = {(_normal(name), version) for name, version in LOCKED.findall(lock)}
    return sorted(
        f"{p.name}=={p.version}" for p in packages if (_normal(p.name), p.version) not in meant
    )


def document(image: str, digest: str, inventory: Inventory, *, made: datetime) -> str:
    """Return the bill of materials of an image, the same text for the same image.

    image: REGISTRY/NAME:TAG. digest: of its manifest, sha256:HEX.
    """
    repository, tag = image.rsplit(":", 1)
    name = repository.rsplit("/", 1)[-1]
    whole = Component(
        name=name,
        version=tag,
        type=ComponentType.CONTAINER,
        bom_ref=image,
        purl=PackageURL(
            "oci", None, name, digest, {"repository_url": repository, "tag": tag}
        ),
    )  # fmt: skip
    parts = list(_parts(inventory))
    bom = Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"{repository}@{digest}"),
        metadata=BomMetaData(component=whole, timestamp=made),
        components=parts,
    )
    bom.register_dependency(whole, parts)
    return str(JsonV1Dot6(bom).output_as_string(indent=2)) + "\n"


def _parts(inventory: Inventory) -> Iterator[Component]:
    yield _component("generic", None, Package("python", inventory.python))
    known = {(_normal(p.name), p.version): p for p in (*inventory.beside, *inventory.packages)}
    for (name, _), package in known.items():
        yield _component("pypi", None, package, name=name)
    distribution = inventory.system.partition("-")[0]
    for package, architecture in installed(inventory.dpkg):
        told = {"arch": architecture, "distro": inventory.system}
        yield _component("deb", distribution, package, **told)


def _component(
    kind: str, namespace: str | None, package: Package, *, name: str = "", **told: str
) -> Component:
    purl = PackageURL(kind, namespace, name or package.name, package.version, told)
    return Component(
        name=package.name,
        version=package.version,
        type=ComponentType.LIBRARY,
        bom_ref=purl.to_string(),
        purl=purl,
        licenses=[LicenseExpression(package.license)] if package.license else [],
    )


def installed(status: str) -> Iterator[tuple[Package, str]]:
    """Yield each installed package of dpkg's status file, with its architecture."""
    for paragraph in status.split("\n\n"):
        fields = dict(
            line.split(": ", 1)
            for line in paragraph.splitlines()
            if re.match(r"[A-Za-z-]+: ", line)
        )
        if fields.get("Status", "").endswith(" installed"):
            yield Package(fields["Package"], fields["Version"]), fields["Architecture"]


def _normal(name: str) -> str:
    """Return a distribution's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
