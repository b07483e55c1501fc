"""Former revisions on their way out: since when they have had no traffic, and for how long."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from yolofleet.plan.observed import Observed
from yolofleet.plan.roles import Release


def draining(
    observed: Observed, release: Release, split: Mapping[str, int], now: datetime
) -> dict[str, datetime]:
    """Return since when each running revision that nobody wants has been without traffic."""
    known = {e.revision: min(e.since, now) for e in observed.status.draining}  # clocks are set back
    # while those that are wanted and answer are too few, others by the Service are needed
    answer = [r.name for r in release.wanted if release.answering in (None, r.name)]
    short = sum(map(observed.ready, answer)) < release.serving
    spans = release.answering is None or observed.service.spans
    return {
        revision.name: known.get(revision.name, now)
        for revision in release.former
        if (seen := observed.revisions[revision.name]).replicas
        and seen.ready
        and not split.get(revision.name)
        and not (revision.name in release.instead or (short and spans))
        and not (observed.named(revision.name) or observed.matched == revision.name)
        and revision.name not in observed.lingering
        and (revision.name in known or not observed.pending)
    }


def drained(since: datetime, seconds: float, now: datetime) -> bool:
    """Say whether a revision without traffic since then has finished its requests."""
    return now - since >= timedelta(seconds=seconds)
