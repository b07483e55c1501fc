"""From a commit to a registry. The chart is pushed last: where it is, the release is whole."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from cluster import base_image, images, mode, registry, released
from cluster.cache import discard, lock
from cluster.images import PRODUCTS, Product
from cluster.paths import REPOSITORY
from cluster.steps import output
from release import chart, rules, sbom
from release import registry as published
from release.errors import Refused, WrongResult
from release.rules import Facts

DIST: Final = REPOSITORY / "dist"
CRDS: Final = REPOSITORY / "crds"
IGNORED: Final = ("ls-files", "--others", "--ignored", "--exclude-standard")
SHIPPED: Final = ("operator", "serving_image", "requirements", "charts", "crds")
LISTING: Final = "release.json"
SERVING: Final = (
    "yoloserve.assembly",
    "yoloserve.access.tokens",
    "yoloserve.http.fetching",
    "onnxruntime",
    "s3fs",
)


@dataclass(frozen=True, slots=True)
class Released:
    """An image of a release, the lock of what is installed in it, and modules that it runs."""

    product: Product
    lock: str
    modules: tuple[str, ...]  # with those that are imported late, where no GPU is needed

    def name(self, version: str) -> str:
        """Return NAME:TAG."""
        return f"{self.product.name.rsplit('/', 1)[-1]}:{version}{self.product.variant}"


def _serving(variant: str, *modules: str) -> Released:
    product = Product(
        "yolofleet/yoloserve", "serving_image/Dockerfile", target=variant, variant=f"-{variant}"
    )
    return Released(product, f"requirements/serving-{variant}.txt", (*SERVING, *modules))


IMAGES: Final = {
    "operator": Released(
        PRODUCTS["operator"], "requirements/operator.txt", ("yolofleet.__main__",)
    ),
    "cpu": _serving("cpu", "openvino"),
    "torch": _serving("torch", "torch"),
    "gpu": _serving("gpu"),
    "ray": _serving("ray", "openvino", "ray", "yoloserve.rayserve"),
}
ALWAYS: Final = ("operator", "cpu")  # without these the chart serves nobody


@dataclass(frozen=True, slots=True)
class Commit:
    """What is released."""

    id: str
    made: datetime
    changed: str  # as `git status --porcelain` tells it, and what git ignores and images would hold

    @classmethod
    def here(cls) -> Commit:
        """Return the commit that is checked out."""
        # What a person's own settings would add or leave out is said.
        commit, made = git("log", "-1", "--no-show-signature", "--format=%H %cI").split()
        changed = git("status", "--porcelain", "--untracked-files", "--ignore-submodules=none")
        ignored, tracked = git(*IGNORED, "--", *SHIPPED), git("ls-files", "-v", "--", *SHIPPED)
        unwatched = [line for line in tracked.splitlines() if not line.startswith("H ")]
        changes = [*changed.splitlines(), *strays(ignored), *unwatched]
        return cls(commit, datetime.fromisoformat(made), "\n".join(changes))


@dataclass(frozen=True, slots=True)
class Listing:
    """What a release is made of, as dist/VERSION/release.json tells it."""

    version: str
    commit: str
    pushed_to: str  # empty: nobody has it
    registry: str  # where the chart says that the images are
    base_image: str
    images: dict[str, str]  # NAME:TAG to digest
    chart: str


@lock("release")  # two would build, push and write under the same names
def make(version: str, to: str, wanted: Sequence[str], out: Path) -> Listing:
    """Release a version to the registry `to`, or only into the folder `out` where that is empty.

    Then the images go to a registry that ends with this call, because nobody else tells an image's
    digest. Raises Refused.
    """
    commit = Commit.here()
    facts = Facts(
        version=version,
        registry=to,
        changelog=(REPOSITORY / "CHANGELOG.md").read_text(),
        changed=commit.changed,
        commit=commit.id,
        made_of=_made_of(out),
    )
    _refuse(facts)
    way = mode.current()
    released.provide(way)
    args = images.arguments(way)
    stand_in = args["BASE_IMAGE"] == base_image.STAND_IN
    indexes = tuple(value for name, value in args.items() if "INDEX" in name)
    _refuse(replace(facts, stand_in=stand_in, indexes=indexes))

    part = out.with_name(out.name + ".part")
    discard(part)
    part.mkdir(parents=True)
    chosen = {name: IMAGES[name] for name in dict.fromkeys((*ALWAYS, *wanted))}
    told = to or chart.registry_of_checkout()
    labels = {
        "org.opencontainers.image.version": version,
        "org.opencontainers.image.revision": commit.id,
        "org.opencontainers.image.created": commit.made.isoformat(),
        "org.opencontainers.image.base.name": args["BASE_IMAGE"],
    }
    with _destination(to) as target:
        published.refuse_chart(target, chart.NAME, version)
        inventories = {}
        for image in chosen.values():
            tag = f"{target}/{image.name(version)}"
            images.build_as(tag, image.product, args, labels=labels)
            published.refuse_others(tag)
            inventories[image.name(version)] = _inventory(tag, image)
        # What helm refuses, it refuses now.
        _pack(version, told, dict.fromkeys(inventories, "sha256:" + "0" * 64), part, commit)
        digests = {name: published.push(f"{target}/{name}") for name in inventories}

    for name, inventory in inventories.items():
        bill = sbom.document(f"{told}/{name}", digests[name], inventory, made=commit.made)
        (part / f"{name.replace(':', '-')}.cdx.json").write_text(bill)
    archive = _pack(version, told, digests, part, commit)
    shutil.copytree(CRDS, part / "crds")
    listing = Listing(
        version=version,
        commit=commit.id,
        pushed_to=to,
        registry=told,
        base_image=args["BASE_IMAGE"],
        images=digests,
        chart=published.chart_reference(told, chart.NAME),
    )
    (part / LISTING).write_text(json.dumps(asdict(listing), indent=2) + "\n")
    (part / "SHA256SUMS").write_text(sums(part))
    discard(out)
    part.rename(out)
    if to:
        published.push_chart(out / archive.name, to)
    return listing


@contextmanager
def _destination(to: str) -> Iterator[str]:
    """Yield where images are pushed: the registry given, or one of ours that ends with this."""
    if to:
        yield to
        return
    with registry.serve(registry.LOOPBACK) as (address,), published.forgotten(address):
        yield address


def _inventory(local: str, image: Released) -> sbom.Inventory:
    inventory = sbom.read(local, image.modules)
    locked = (REPOSITORY / image.lock).read_text()
    if more := sbom.beyond(locked, inventory.packages):
        raise WrongResult(f"{local} holds what {image.lock} does not: {', '.join(more)}")
    return inventory


def _pack(version: str, told: str, digests: Mapping[str, str], into: Path, commit: Commit) -> Path:
    checked_in = (chart.FOLDER / "Chart.yaml").read_text()
    metadata = chart.metadata(checked_in, version, told, digests)
    return chart.package(metadata, into, made=commit.made)


def _refuse(facts: Facts) -> None:
    if reasons := rules.refusals(facts):
        raise Refused("\n".join(reasons))


def git(*command: str) -> str:
    """Return what git says of this checkout. Raises Refused where it cannot: nothing is no answer.

    A tree whose changes nobody could list would be released as if it had none.
    """
    told = output(["git", "-C", REPOSITORY, *command], timeout_s=600)
    if told is None:
        raise Refused(
            f"A release is made of a commit, and `git {command[0]}` fails in {REPOSITORY}: make it"
            " work there, in a checkout."
        )
    return told


def strays(ignored: str) -> list[str]:
    """Return the files that git ignores and a build would copy: all but what Python compiled."""
    return [
        f"!! {file}"
        for file in ignored.splitlines()
        if "__pycache__" not in file and not file.endswith(".pyc")
    ]


def _made_of(out: Path) -> str:
    try:
        return str(json.loads((out / LISTING).read_text())["commit"])
    except FileNotFoundError:
        return ""


def sums(folder: Path) -> str:
    """Return the SHA-256 of each file below a folder, as `sha256sum --check` reads them."""
    return "".join(
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(folder)}\n"
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    )
