"""What pods re-read while they run, pure: from where it is decided to its file.

`until` ends a shadow that nobody renews: an operator that is gone, a detector that is suspended.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from yolofleet.api.access import Guard
from yolofleet.api.detector import LogLevel
from yolofleet.api.names import Manifest
from yolofleet.workloads.judged import reads_live
from yolofleet.workloads.revision import Revision

FILE: Final = "live.json"
_TOKEN: Final = re.compile("[0-9a-f]{16,64}")
LASTS: Final = timedelta(minutes=10)
RENEWED: Final = LASTS / 2
LOOKED_AT: Final = timedelta(hours=1)
"""How long after it was called off a revision's pictures are kept; no pod keeps one for longer."""
FRAMES_OF_A_POD: Final = 10.0
"""So many copies a second each pod on trial is shown while nobody knows how many it can carry."""
_OF_CAPACITY: Final = 0.5
_SLOWEST, _FASTEST = 0.01, 100_000.0  # of what a pod is sent: no pod's word is believed


@dataclass(frozen=True, slots=True)
class Shadow:
    """Copies of requests for a revision on trial.

    percent: of the requests that pods of others answer. max_per_second: for each of these pods.
    token: by which they are known where everybody may ask; whoever reads the ConfigMap has it.
    """

    revision: str
    percent: int
    max_per_second: float
    until: datetime
    keep_frames: bool = False
    token: str | None = field(default=None, repr=False)

    def due_in(self, now: datetime) -> timedelta:
        """Return when to renew it; one that is over, but for its pictures, is not."""
        due = self.until - RENEWED if self.percent else self.until
        return max(due - now, timedelta(seconds=1))

    def as_dict(self) -> dict[str, Any]:
        """Return what pods read of it."""
        until = self.until.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return asdict(self) | {"until": until}


def file(shadow: Shadow | None, level: LogLevel) -> str | None:
    """Return the file that pods read; None where they do as they do without one."""
    as_dict: dict[str, Any] = {"shadow": shadow.as_dict()} if shadow else {}
    if level is not LogLevel.INFO:
        as_dict["log_level"] = level.value
    return json.dumps(as_dict, sort_keys=True) if as_dict else None


def shadow_in(live: Manifest | None) -> Shadow | None:
    """Read the shadow of the ConfigMap `live` back; None where it holds none that we wrote."""
    data = live.get("data") if live else None
    try:
        stored: Any = json.loads(data[FILE])["shadow"] if isinstance(data, Mapping) else None
        found = Shadow(**stored | {"until": datetime.fromisoformat(stored["until"])})
        ours = found.token is None or _TOKEN.fullmatch(found.token)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return found if ours and found.until.tzinfo else None


def shadow(
    trial: Revision,
    percent: int,
    *,
    senders: int,
    receivers: int,
    capacity: float | None,
    before: Shadow | None,
    token: str,
    now: datetime,
    keep_frames: bool = False,
) -> Shadow:
    """Return the shadow that `trial` is to get.

    senders, receivers: ready pods of the stable revision, and of that on trial. capacity: how many
    pictures a second one of the latter can carry, if that is known: it is shown half as many.
    before: the one that is there: it is renewed well before its end, and keeps its token. token:
    one that was never used.
    """
    known = before if before and before.revision == trial.name else None
    until = now.replace(microsecond=0) + LASTS
    if known and now + RENEWED < known.until <= until:
        until = known.until
    kept = known.token if known else None
    of_a_pod = _OF_CAPACITY * capacity if capacity else FRAMES_OF_A_POD
    rate = of_a_pod * max(receivers, 1) / max(senders, 1)
    return Shadow(
        revision=trial.name,
        percent=percent,
        max_per_second=round(min(max(rate, _SLOWEST), _FASTEST), 2),
        until=until,
        keep_frames=keep_frames,
        token=None if trial.guard.shadow_key else kept or token,
    )


def looked_at(before: Shadow | None, off: Mapping[str, datetime], now: datetime) -> Shadow | None:
    """Return what is left of the shadow of a revision that was called off: its pictures, an hour.

    off: when each was. Whoever asks for such a revision is to see why it was.
    """
    if before is None or not before.keep_frames or before.revision not in off:
        return None
    until = off[before.revision] + LOOKED_AT
    return replace(before, percent=0, until=until) if now < until else None


def can_be_shown(stable: Revision | None, trial: Revision) -> bool:
    """Say whether pods of `stable` send copies, and pods of `trial` take them for such."""
    return (
        stable is not None
        and reads_live(stable)
        and reads_live(trial)
        and stable.guard.shadow_key == trial.guard.shadow_key
        and all(map(_knows_copies, (stable.guard, trial.guard)))
    )


def _knows_copies(guard: Guard) -> bool:
    return guard.shadow_key is not None or not (guard.jwt or guard.api_keys)
