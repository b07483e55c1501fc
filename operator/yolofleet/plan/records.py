"""The records of revisions, as they are to be: one each, apart from its workload.

While a workload is there its note says what runs, as long as we wrote that, and its record is a
copy that outlives it. What is written down stays as it is word by word, whatever a later version
would write: records cannot be changed, and nothing is written because of an upgrade.
"""

from collections.abc import Iterable, Mapping

from yolofleet.plan.observed import Observed
from yolofleet.workloads.record import tells_the_same
from yolofleet.workloads.revision import Revision, read_back
from yolofleet.workloads.workload import Record


def records(revisions: Iterable[Revision], observed: Observed) -> Mapping[str, Record]:
    """Return the record of each of `revisions`; those that have none are numbered by age."""
    seen = observed.revisions
    taken = {name: each.record.number for name, each in seen.items() if each.record}
    found: dict[str, Record] = {}
    number = 0
    for revision in sorted(revisions, key=lambda r: (_age(observed, r.name), r.name in taken)):
        if revision.name not in taken:
            after = number + 1  # where it was, if its record alone was deleted
            taken[revision.name] = max(taken.values()) + 1 if after in taken.values() else after
        number = taken[revision.name]
        found[revision.name] = Record(_text(revision, observed), number)
    return found


def _age(observed: Observed, name: str) -> tuple[bool, str]:
    seen = observed.revisions.get(name)
    return (False, seen.created) if seen else (True, "")


def _text(revision: Revision, observed: Observed) -> str:
    """Return what is written down of `revision` already, if that is so; else what is true now.

    What can be read is never given up for what cannot.
    """
    name, seen = revision.name, observed.revisions.get(revision.name)
    written = [known.text for known in (seen.record, seen.noted) if known] if seen else []
    for known in written:
        if read_back(name, known) == revision:
            return known
    text = revision.record()
    same = next((known for known in written if tells_the_same(known, text)), text)
    return next((each for each in (same, *written) if read_back(name, each)), same)
