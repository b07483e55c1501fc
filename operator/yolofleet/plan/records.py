"""The records of revisions, as they are to be: one each, apart from its Deployment.

While a Deployment is there it says what runs, and its record is a copy that outlives it. What is
written down stays as it is word by word, whatever a later version would write: records cannot be
changed, and nothing is written because of an upgrade.
"""

from collections.abc import Iterable, Mapping

from yolofleet.plan.observed import Observed
from yolofleet.plan.revision import Record, Revision, tells_the_same


def records(revisions: Iterable[Revision], observed: Observed) -> Mapping[str, Record]:
    """Return the record of each of `revisions`; those that have none are numbered by age."""
    seen = observed.revisions
    last = max((r.record.number for r in seen.values() if r.record), default=0)
    found: dict[str, Record] = {}
    for revision in sorted(revisions, key=lambda r: _age(observed, r.name)):
        live = seen[revision.name].record if revision.name in seen else None
        last += live is None
        found[revision.name] = Record(_text(revision, observed), live.number if live else last)
    return found


def _age(observed: Observed, name: str) -> tuple[bool, str]:
    seen = observed.revisions.get(name)
    return (False, seen.created) if seen else (True, "")


def _text(revision: Revision, observed: Observed) -> str:
    """Return what is written down of `revision` already, if that is so; else what is true now."""
    text, seen = revision.record(), observed.revisions.get(revision.name)
    written = [known.text for known in (seen.record, seen.noted) if known] if seen else []
    return next((known for known in written if tells_the_same(known, text)), text)
