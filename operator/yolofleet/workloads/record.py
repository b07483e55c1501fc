"""The record of a revision: what its workload is made again from when somebody deletes that."""

import json
import re
from typing import Any

from pydantic import ValidationError

from yolofleet.api.analysis import Failed
from yolofleet.api.detector import Detector
from yolofleet.api.names import (
    FAILED_ANNOTATION,
    RECORD_KEY,
    RELEASED_ANNOTATION,
    REMADE_ANNOTATION,
    UNPROVED,
    Manifest,
)
from yolofleet.manifests.child import child
from yolofleet.workloads.workload import PlannedRevision, Record

KIND = "ControllerRevision"


def controller_revision(detector: Detector, planned: PlannedRevision) -> Manifest:
    """Return the record of one revision. It names Secrets, as the spec does, and holds none.

    The record is one text: what is hashed to the revision's name has to stay as it was written,
    and the API server writes numbers as it likes (1.0 as 1).
    """
    name = planned.revision.name
    return child(
        "controller_revision.yaml.j2",
        detector,
        name,
        revision=name,
        annotations=notes(planned) or None,
        data={RECORD_KEY: planned.record.text},
        number=planned.record.number,
    )


def record_in(kept: Manifest) -> Record:
    """Return the record in a ControllerRevision; without text if another made it."""
    data = kept.get("data")
    text = data.get(RECORD_KEY) if isinstance(data, dict) else None
    return Record(text if isinstance(text, str) else "", int(kept.get("revision") or 0))


def tells_the_same(one: str, other: str) -> bool:
    """Say whether two records of one revision render the same pods.

    A later version writes defaults down that an earlier one did not know of.
    """
    return one == other or (_essence(one) is not None and _essence(one) == _essence(other))


def _essence(record: str) -> list[Any] | None:
    try:
        written = json.loads(record)
        return [written["render"], written["spec"], sorted(written["whole"])]
    except (ValueError, KeyError, TypeError):
        return None


def notes(planned: PlannedRevision) -> dict[str, str]:
    """Return the annotations that outlive a status: it was released, or what it failed."""
    word = UNPROVED if planned.unproved else "true"
    annotations = {RELEASED_ANNOTATION: word} if planned.released else {}
    if planned.remade:
        annotations[REMADE_ANNOTATION] = str(planned.remade)
    return annotations | ({FAILED_ANNOTATION: _noted(planned.failed)} if planned.failed else {})


def _noted(failed: Failed) -> str:
    return failed.model_dump_json(by_alias=True, exclude_none=True)


def failure_noted(child: Manifest) -> Failed | None:
    """Return what a workload or a record says that its revision failed, as far as it reads."""
    text = (child["metadata"].get("annotations") or {}).get(FAILED_ANNOTATION)
    try:
        return Failed.model_validate_json(text) if text else None
    except ValidationError:
        return None


def times_remade(child: Manifest) -> int:
    """Return how often a record says that its workload was made anew."""
    text = str((child["metadata"].get("annotations") or {}).get(REMADE_ANNOTATION, ""))
    return int(text) if re.fullmatch("[0-9]", text) else 0


def was_released(child: Manifest) -> bool:
    """Say whether a workload or a record says so."""
    return RELEASED_ANNOTATION in (child["metadata"].get("annotations") or {})


def was_proved(child: Manifest) -> bool:
    """Say whether a workload or a record of what was released says that it proved itself."""
    word = (child["metadata"].get("annotations") or {}).get(RELEASED_ANNOTATION)
    return word is not None and word != UNPROVED
