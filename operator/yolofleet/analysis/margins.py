"""By which limits a revision is judged: with others, what it failed is no failure any more."""

import hashlib

from yolofleet.api.analysis import Analysis

_NO_LIMITS = {"interval", "source", "max_hold", "mode", "on_failure", "keep_frames"}


def margins_hash(analysis: Analysis) -> str:
    """Return a short hash of the limits, and of where the known pictures are."""
    margins = analysis.model_dump_json(by_alias=True, exclude=_NO_LIMITS, exclude_defaults=True)
    return hashlib.sha256(margins.encode()).hexdigest()[:8]
