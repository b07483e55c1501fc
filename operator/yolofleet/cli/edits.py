"""What each command changes: a detector as it was read in, a merge patch out; pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from yolofleet.api import names
from yolofleet.api.plain import plain
from yolofleet.api.seen import Raw, Seen
from yolofleet.api.typed import Approval, approvals_in, patching, retries_in, retrying
from yolofleet.cli.merging import difference

BY_FIELD: Final = ("runtime", "inference")
"""Parts of which a canary gives the fields that differ; the others it replaces whole."""

WHOLE: Final = ("model", "resources", "accelerator", "podTemplate")

UNRECORDED: Final[dict[str, Raw]] = {"runtime": {"engine": "deployment"}, "accelerator": {}}
"""What a record does not have that is so: records are of before there was anything else."""

WITH_COMMANDS: Final[dict[str, frozenset[str]]] = {
    "Progressing": frozenset(
        {"AwaitingApproval", "AnalysisFailed", "AnalysisUnavailable", "NotEnoughData"}
    ),
    "CanaryHealthy": frozenset({"AnalysisFailed"}),
    "Analysed": frozenset({"AnalysisFailed", "NotEnoughData"}),
}
"""Conditions in which the operator says commands, by reason; the one of the spec's revision first.

Other messages have words of pods in them.
"""


class NothingToDo(Exception):
    """What was asked for cannot be, or is so already; the message says why and what to type."""


@dataclass(frozen=True, slots=True)
class Edit:
    """What to change. says: what comes of it. typed: the command that does the same."""

    patch: dict[str, Any]
    says: str
    typed: str


def _edit(seen: Seen, patch: dict[str, Any], says: str) -> Edit:
    return Edit(patch, says, patching(seen.name, seen.namespace, patch))


def _spec(seen: Seen, spec: dict[str, Any], says: str) -> Edit:
    return _edit(seen, {"spec": spec}, says)


def approval_in(seen: Seen, kind: str) -> Approval | None:
    """Return what the condition `kind` has a command for: the last, after all words of others."""
    return next(reversed(list(approvals_in(_with_commands(seen, kind)))), None)


def retry_in(seen: Seen, kind: str) -> str | None:
    """Return by which word that condition has a command to judge again: the last, as well."""
    return next(reversed(retries_in(_with_commands(seen, kind))), None)


def _with_commands(seen: Seen, kind: str) -> str:
    condition = seen.condition(kind)
    said = condition.get("reason") in WITH_COMMANDS[kind]
    return str(condition.get("message", "")) if said else ""


def promote(seen: Seen) -> Edit:
    """Copy what differs of the canary into the spec, and remove it."""
    canary = seen.spec.get("canary")
    if canary is None:
        raise NothingToDo(
            f"nothing to promote: {seen.name} has no spec.canary. A release goes on by its own"
            f" steps: kubectl yd explain {seen.name} says what it waits for"
        )
    patch: dict[str, Any] = {}
    for name in (*BY_FIELD, *WHOLE):
        if canary.get(name) is not None:
            now = seen.spec.get(name) or {}
            inherited = now if name in BY_FIELD else {}
            patch[name] = difference(now, {**inherited, **canary[name]})
    if "accelerator" not in patch and _has_accelerators(canary.get("resources")):
        patch |= _gone(seen.spec, "accelerator")  # they take its place: pods would have both
    given = {name: part for name, part in patch.items() if part or part is None}
    given |= _of_another_engine(seen.spec, given)
    return _spec(seen, {**given, "canary": None}, f"promotes the canary of {seen.name}")


def approve(
    seen: Seen,
    *,
    without_proof: bool = False,
    revision: str | None = None,
    step: int | None = None,
) -> Edit:
    """Let the step go on that waits for a person's word.

    revision, step: what that person has looked at, if it is said: a word for one is none for what
    waits by the time it is typed.
    """
    _caught_up(seen)
    offered = approval_in(seen, "Progressing")
    if offered is None:
        raise NothingToDo(f"nothing to approve: {_progress(seen)}")
    if offered.despite not in (None, "NotEnoughData"):
        raise NothingToDo(
            f"{offered.revision} was called off, and waits for no approval. To judge it again:"
            f" kubectl yd retry {seen.name}. To have it all the same: kubectl yd accept {seen.name}"
        )
    if revision not in (None, offered.revision) or step not in (None, offered.step):
        raise NothingToDo(
            f"another step waits now: step {offered.step} of {offered.revision}. Look at it, and"
            f" type what to approve: {approving(seen.name, offered)}"
        )
    if offered.despite is None:
        return _approved(seen, offered, f"approves step {offered.step}")
    if not without_proof:
        raise NothingToDo(
            f"{offered.revision} has not proved enough yet. To go on without proof:"
            f" {approving(seen.name, offered)}"
        )
    return _approved(seen, offered, f"lets step {offered.step} go on without proof")


def approving(name: str, offered: Approval) -> str:
    """Return the command of this plugin by which the very step goes on that `offered` is of."""
    despite = " --without-proof" if offered.despite else ""
    said = f"--revision {offered.revision} --step {offered.step}"
    return f"kubectl yd approve {name} {said}{despite}"


def accept(seen: Seen) -> Edit:
    """Let a revision go on that analysis called off."""
    _caught_up(seen)
    for kind in WITH_COMMANDS:
        offered = approval_in(seen, kind)
        if offered and offered.despite == "AnalysisFailed":
            return _approved(seen, offered, "accepts what failed")
    raise NothingToDo(
        f"nothing to accept: no revision of {seen.name} was called off. {_progress(seen)}"
    )


def retry(seen: Seen) -> Edit:
    """Have the revision judged again that analysis called off, or gave up on."""
    _caught_up(seen)
    for kind in WITH_COMMANDS:
        if again := retry_in(seen, kind):
            patch = {"metadata": {"annotations": {names.RETRY_ANNOTATION: again}}}
            says = f"has {again.partition(':')[0]} judged again"
            return Edit(patch, says, retrying(seen.name, seen.namespace, again))
    raise NothingToDo(
        f"nothing to judge again: no revision of {seen.name} was called off. {_progress(seen)}"
    )


def pause(seen: Seen) -> Edit:
    """Hold a release where it is."""
    if _is_paused(seen):
        raise NothingToDo(
            f"{seen.name} is paused already; kubectl yd resume {seen.name} lets it go on"
        )
    says = f"holds the releases of {seen.name}: weights and replicas stay"
    return _spec(seen, {"rollout": {"paused": True}}, says)


def resume(seen: Seen) -> Edit:
    """Let a release go on that was paused."""
    if not _is_paused(seen):
        raise NothingToDo(f"{seen.name} is not paused. {_progress(seen)}")
    return _spec(seen, {"rollout": {"paused": False}}, f"lets the releases of {seen.name} go on")


def roll_back(seen: Seen, record: Raw) -> Edit:
    """Put back what the spec said of the revision that `record` (a ControllerRevision) is of."""
    name = record["metadata"]["name"]
    patch = _as_recorded(seen, record)
    if not patch:
        raise NothingToDo(
            f"nothing to roll back: the spec of {seen.name} asks for {name} already."
            f" {_progress(seen)}"
        )
    return _spec(seen, patch, f"puts the spec back that {name} was made of")


def is_called_off_by_the_spec(seen: Seen) -> bool:
    """Say whether to abort is to put the former spec back, and not to remove a canary."""
    wanted = {str(seen.release.get("revision", ""))}
    wanted |= {each["name"] for each in seen.revisions if each.get("role") == "Target"}
    if offered := approval_in(seen, "Progressing"):
        wanted.add(offered.revision)
    return bool(wanted - {"", seen.stable})


def abort_release(seen: Seen, record: Raw) -> Edit:
    """Put the spec back that the stable revision was made of."""
    name, patch = record["metadata"]["name"], _as_recorded(seen, record)
    if not patch:
        raise NothingToDo(
            f"nothing to abort: the spec of {seen.name} asks for {name}, which it is released on."
            f" {_progress(seen)}"
        )
    return _spec(seen, patch, f"calls the release off: back to {name}")


def abort_canary(seen: Seen) -> Edit:
    """Remove the canary."""
    _caught_up(seen)  # a release that the operator has yet to begin is what is to be called off
    if seen.spec.get("canary") is None:
        raise NothingToDo(
            f"nothing to abort: {seen.name} has no spec.canary and no release under way."
            f" {_progress(seen)}"
        )
    return _spec(seen, {"canary": None}, f"removes the canary of {seen.name}")


def _as_recorded(seen: Seen, record: Raw) -> dict[str, Any]:
    """Return what of the spec differs from what `record` holds.

    `access` also says who may talk to pods, which is no part of a revision and stays.
    """
    patch: dict[str, Any] = {}
    recorded = _parts(record)
    for name in {**UNRECORDED, **recorded}:
        now, part = seen.spec.get(name), {**UNRECORDED.get(name, {}), **recorded.get(name, {})}
        if not part:
            patch |= _gone(seen.spec, name)
            continue
        if name == "access":
            now = {field: value for field, value in (now or {}).items() if field in part}
        if changed := difference(now, part):
            patch[name] = changed
    return patch | _of_another_engine(seen.spec, patch)


def _gone(spec: Raw, name: str) -> dict[str, Any]:
    """Return the patch that removes `name`, if it is there."""
    return {name: None} if spec.get(name) is not None else {}


def _has_accelerators(resources: Raw | None) -> bool:
    """Say whether limits ask for some."""
    return any(map(names.is_accelerator, (resources or {}).get("limits") or {}))


def _of_another_engine(spec: Raw, patch: dict[str, Any]) -> dict[str, Any]:
    """Return what to remove of the spec since only Ray has it, where `patch` leads away from it."""
    runtime, now = patch.get("runtime") or {}, spec.get("runtime") or {}
    if runtime.get("engine", now.get("engine")) == "ray":
        return {}
    runtime = {**_gone(now, "ray"), **runtime}
    return ({"runtime": runtime} if runtime else {}) | _gone(spec, "rayServe")


def _parts(record: Raw) -> Mapping[str, Mapping[str, Any]]:
    name = record["metadata"]["name"]
    try:
        whole = json.loads(record["data"][names.RECORD_KEY])["whole"]
        return {part: dict(content) for part, content in whole.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NothingToDo(
            f"the record of {name} cannot be read ({error!r}): put the former spec back by hand,"
            " from Git for example"
        ) from error


def _approved(seen: Seen, approval: Approval, says: str) -> Edit:
    patch = approval.patch()
    if seen.spec.get("rollout", {}).get("approved") == {
        name: value
        for name, value in patch["spec"]["rollout"]["approved"].items()
        if value is not None
    }:
        raise NothingToDo(f"{approval.revision} is approved already. {_progress(seen)}")
    return _edit(seen, patch, f"{says} of {approval.revision}")


def _is_paused(seen: Seen) -> bool:
    return bool(seen.spec.get("rollout", {}).get("paused"))


def _caught_up(seen: Seen) -> None:
    """Refuse while the messages speak of a spec before this one."""
    if seen.unseen:
        raise NothingToDo(
            f"the operator has not seen the last edit of {seen.name} yet, so that nobody knows what"
            f" is under way: try again in a moment. If it stays so: kubectl yd explain {seen.name}"
        )


def _progress(seen: Seen) -> str:
    progressing = seen.condition("Progressing")
    if not progressing:
        return "The operator has said nothing of it yet"
    return f"Progressing says {progressing['reason']}: {plain(progressing.get('message', ''))}"
