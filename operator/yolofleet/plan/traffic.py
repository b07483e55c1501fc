"""Weights: they sum to 100, and go only to what ready replicas can carry."""

from collections.abc import Mapping, Sequence

from yolofleet.plan.capacity import share_of, share_rounded_up
from yolofleet.plan.observed import Observed


def weights(
    observed: Observed,
    *,
    stable: str,
    staying: int,
    shares: Mapping[str, int],
    instead: Sequence[str] = (),
    full: int,
) -> dict[str, int]:
    """Return the percent of requests for each revision; `stable` takes what the others leave.

    staying: ready replicas of stable that are not about to go. shares: what other revisions should
    get, the first one first. instead: former revisions that take what stable had, or did until
    nobody was ready. full: replicas that carry everything; 0: nobody is to answer. Each is cut to
    what its ready replicas carry. When stable is short itself, those that serve now keep of it what
    is theirs by ready replicas: moving traffic onto too few is how roll-backs fail. A dark launch
    gets no request. What no route can lead to is not named: a route that waited for it would leave
    requests with those that it has.
    """
    asked = {n: s for n, s in shares.items() if n != stable and n not in observed.unreached}
    given: dict[str, int] = {}
    for name, share in (*asked.items(), *((name, 100) for name in instead)):
        left = 100 - sum(given.values())
        given[name] = min(share, share_of(observed.ready(name), full), left)
    spare = 100 - sum(given.values())
    short = spare - share_rounded_up(staying, full) if full else 0
    for name, before in observed.weights.items():
        if short <= 0:
            break
        if name in (stable, *observed.unreached) or not observed.ready(name):
            continue
        fair = max(share_of(observed.ready(name), full), _part(observed.ready(name), staying))
        kept = min(before, fair) - given.get(name, 0)
        if kept > 0:
            kept = min(kept, short)
            given[name] = given.get(name, 0) + kept
            short -= kept
    if not staying and (alive := _alive(observed, given)):
        given = _stretched({name: given[name] for name in alive})
    elif not staying and instead and not any(map(observed.ready, instead)):
        given[instead[0]] = 100  # nobody is ready: it may be a moment's
    rest = 100 - sum(given.values())
    return {stable: rest, **given}


def _part(ready: int, others: int) -> int:
    """Return the percent that `ready` replicas are of these and `others`."""
    return 100 * ready // (ready + others)


def _alive(observed: Observed, given: Mapping[str, int]) -> list[str]:
    return [name for name, share in given.items() if share > 0 and observed.ready(name)]


def _stretched(given: Mapping[str, int]) -> dict[str, int]:
    """Scale `given` up to 100: with nothing else ready, those that serve take everything."""
    total = sum(given.values())
    scaled = {name: 100 * share // total for name, share in given.items()}
    first = next(iter(scaled))
    scaled[first] += 100 - sum(scaled.values())
    return scaled
