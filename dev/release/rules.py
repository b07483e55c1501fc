"""When a version is refused, before anything is built: pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

# https://semver.org, without build metadata: no tag of an image may hold its `+`.
SEMVER: Final = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?",
    re.ASCII,
)
LONGEST: Final = 50  # with the chart's name before it, it becomes a label of at most 63
REGISTRY: Final = re.compile(
    r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:\d{1,5})?(/[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*)*", re.ASCII
)
# Docker takes a first word for Docker Hub's too that has neither dot nor port: it is no host.
DOCKER_HUB: Final = re.compile(r"((.+\.)?docker\.(io|com)(:\d+)?|(?!localhost(/|$))[^.:/]+)(/.*)?")
LOOPBACK: Final = re.compile(r"(127(\.\d{1,3}){3}|localhost)(:\d+)?(/|$)")
LOGIN: Final = re.compile(r"://[^/\s]*@")
HEADING: Final = re.compile(r"^## +\[?([^\s\]]+)", re.MULTILINE)
UNRELEASED: Final = "Unreleased"


@dataclass(frozen=True, slots=True)
class Facts:
    """What the decision looks at."""

    version: str
    registry: str  # HOST[:PORT][/PATH]; empty: nothing is pushed
    changelog: str
    changed: str  # what `git status --porcelain` prints
    commit: str
    made_of: str = ""  # the commit of what is in dist/VERSION already
    indexes: tuple[str, ...] = ()  # of packages, as builds are told them
    stand_in: bool = False  # the base image is one of ours, with the certificates of this machine


def refusals(facts: Facts) -> list[str]:
    """Return every reason not to release this."""
    return [reason for rule in REFUSE_IF if (reason := rule(facts))]


def is_final(version: str) -> bool:
    """Return whether a version is no pre-release."""
    return "-" not in version


def is_loopback(registry: str) -> bool:
    """Return whether a registry is on this machine, where plain HTTP will do."""
    return LOOPBACK.match(registry) is not None


def _is_no_version(facts: Facts) -> str | None:
    version = facts.version
    if version.startswith("v") and SEMVER.fullmatch(version[1:]):
        return f"VERSION={version}: write {version[1:]}; only the tag of the commit begins with v."
    if SEMVER.fullmatch(version.partition("+")[0]) and "+" in version:
        return f"VERSION={version}: no tag of an image may hold a `+`; leave out what follows it."
    if not SEMVER.fullmatch(version):
        return f"VERSION={version}: give MAJOR.MINOR.PATCH, or MAJOR.MINOR.PATCH-PRERELEASE."
    return None


def _is_no_label(facts: Facts) -> str | None:
    if len(facts.version) > LONGEST or facts.version.endswith("-"):
        return (
            f"VERSION={facts.version}: it becomes a label in Kubernetes; at most {LONGEST}"
            " characters, the last a letter or a digit."
        )
    return None


def _names_no_registry(facts: Facts) -> str | None:
    if facts.registry and not REGISTRY.fullmatch(facts.registry):
        return (
            f"REGISTRY={facts.registry}: give HOST[:PORT][/PATH] in small letters, without a scheme"
            " or a slash at the end, such as ghcr.io/OWNER."
        )
    return None


def _is_docker_hub(facts: Facts) -> str | None:
    if REGISTRY.fullmatch(facts.registry) and DOCKER_HUB.fullmatch(facts.registry):
        return (
            f"REGISTRY={facts.registry}: that is Docker Hub, and it has no nested names such as"
            " OWNER/charts/yolofleet; give a registry that has, with its host, such as"
            " ghcr.io/OWNER."
        )
    return None


def _is_not_what_was_committed(facts: Facts) -> str | None:
    if facts.changed:
        return f"The images are labelled with a commit; commit or remove first:\n{facts.changed}"
    return None


def _is_not_in_the_changelog(facts: Facts) -> str | None:
    """A pre-release may take what is under Unreleased."""
    if not SEMVER.fullmatch(facts.version) or not is_final(facts.version):
        return None
    entries = HEADING.split(facts.changelog)[1:]
    sections = dict(zip(entries[::2], entries[1::2], strict=True))
    if re.search(r"^[-*] ", sections.pop(UNRELEASED, ""), re.MULTILINE):
        return (
            f"CHANGELOG.md has entries under {UNRELEASED}: move them under `## {facts.version}`,"
            " or give a pre-release such as "
            f"{facts.version}-rc.1."
        )
    newest = next(iter(sections), "none")
    if newest != facts.version:
        return (
            f"The newest version in CHANGELOG.md is {newest}, not {facts.version}: write its entry."
        )
    return None


def _was_made_of_another_commit(facts: Facts) -> str | None:
    if facts.made_of and facts.made_of != facts.commit:
        return (
            f"dist/{facts.version} was made of {facts.made_of[:12]}, and this is"
            f" {facts.commit[:12]}: take another VERSION, or delete that folder if nobody has it."
        )
    return None


def _would_publish_this_machine(facts: Facts) -> str | None:
    if facts.registry and facts.stand_in and not is_loopback(facts.registry):
        return (
            "No image can be pulled here, so that the base image is one of ours, with the"
            f" certificates that this machine trusts: it is not for {facts.registry}. Release where"
            " Docker can pull python:3.12-slim-bookworm, or leave out REGISTRY."
        )
    return None


def _would_publish_a_login(facts: Facts) -> str | None:
    if facts.registry and any(LOGIN.search(index) for index in facts.indexes):
        return (
            "PIP_INDEX_URL or PIP_EXTRA_INDEX_URL holds a login, and an image tells in its history"
            " what its build was told: release with an index that asks for none."
        )
    return None


REFUSE_IF: Final[tuple[Callable[[Facts], str | None], ...]] = (
    _is_no_version,
    _is_no_label,
    _names_no_registry,
    _is_docker_hub,
    _is_not_what_was_committed,
    _is_not_in_the_changelog,
    _was_made_of_another_commit,
    _would_publish_this_machine,
    _would_publish_a_login,
)
