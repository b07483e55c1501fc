"""What can go wrong when talking to the API server, sorted by who must act.

::

    ClusterError
    ├── Refused              a person must act: trying again changes nothing
    │   ├── Invalid          400, 422: the object is wrong, or a policy refuses it
    │   ├── Forbidden        403: rights, quota, a namespace that is terminating
    │   └── ResourceConflict an object of that name exists and is not ours
    ├── Stale                look again, then try again: the world has moved on
    │   ├── Conflict         409: another writer was faster, or the uid is another
    │   ├── NotFound         404
    │   └── Gone             410: that version, or that page of a list, is forgotten
    ├── Busy                 wait, then try again
    │   ├── Throttled        429: not before `retry_after` seconds
    │   ├── Unauthenticated  401: our token is not taken; the next attempt reads it anew
    │   └── Unavailable      5xx
    │       └── Unanswered   time-outs, no connection
    │           └── Untrusted  its certificate cannot be proved: the bundle was read at the start
    ├── Unfinished           some writes of a reconcile failed; the rest was done, and told
    └── NotLeading           this process may not write (any more)

Nobody is to catch `WentBack`: it ends the process.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any


class ClusterError(Exception):
    """Anything the API server refused, or could not answer."""


class Refused(ClusterError):
    """A person must act."""


class Invalid(Refused):
    """The object is wrong, or an admission policy refuses it."""


class Forbidden(Refused):
    """The operator lacks the right, or the namespace has no room for the object."""


class ResourceConflict(Refused):
    """An object of the wanted name exists, and this detector does not control it.

    controller: "Kind name" of who does; empty: nobody, and it is not labelled as the detector's.
    """

    def __init__(self, kind: str, namespace: str, name: str, controller: str) -> None:
        self.kind = kind
        self.name = name
        self.controller = controller
        self.where = f"in namespace {namespace} and belongs to {controller or 'nobody'}"
        super().__init__(f"{kind} {name} already exists {self.where}")


class Stale(ClusterError):
    """What the write was based on is no longer so."""


class Conflict(Stale):
    """Another writer was faster, owns the field, or the object was made anew."""


class NotFound(Stale):
    """There is no such object, or no such API."""


class Gone(Stale):
    """The server has forgotten the version, or the rest of the list, that was asked for."""


class Busy(ClusterError):
    """The server cannot answer now."""


class Throttled(Busy):
    """The server asks for a pause of `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unauthenticated(Busy):
    """The server does not take our token: it has expired, or the server cannot check it now."""


class Unavailable(Busy):
    """The server failed."""


class Unanswered(Unavailable):
    """The server did not answer in time, or there was no connection."""


class Untrusted(Unanswered):
    """Whoever answers does not prove to be the server, by the authorities that we know of."""


class Unfinished(ClusterError):
    """Some writes failed, and all else was done.

    error: the one that says when to try again; of those that were refused, where all were, one.
    again: when to look again whatever becomes of the back-off; None: no such time.
    """

    def __init__(self, error: ClusterError, again: timedelta | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.again = again


class WentBack(Exception):
    """The store was restored from a backup: what memory holds is of a time that is undone.

    No request failed of it, and nothing mends it but to begin anew.
    """


class NotLeading(ClusterError):
    """Another replica leads, or might: nothing may be written from here."""


_BY_CODE: dict[int, type[ClusterError]] = {
    400: Invalid,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    405: Gone,  # of a kind whose definition is on its way out
    409: Conflict,
    410: Gone,
    422: Invalid,
}
_UNTYPED = "failed to create typed patch object"
"""With this and 500 the API server refuses an apply with a field that the kind does not have."""

LONGEST_MESSAGE = 16_384  # four conditions full; what is refused is quoted whole, up to megabytes

_PAUSE_SECONDS = 1.0  # when a 429 does not say
_LONGEST_PAUSE_SECONDS = 60.0  # whatever it says: a load balancer's day is no server's


def from_status(code: int, body: Any, headers: Mapping[str, str]) -> ClusterError:
    """Return the error for an answer of `code`; `body` is the Status object, if there was one.

    It may be anything else: who answers may be a proxy, or a webhook's server.
    """
    body = body if isinstance(body, Mapping) else {}
    message = str(body.get("message") or f"the API server answered {code}")[:LONGEST_MESSAGE]
    if code == 429:
        return Throttled(message, _retry_after(headers))
    if code == 500 and _UNTYPED in message:
        return Invalid(message.partition("): ")[2] or message)
    if any(cause.get("field") == "metadata.uid" for cause in _causes(body)):
        return Conflict(message)  # another object has the name by now; told as 422
    if code in _BY_CODE:
        return _BY_CODE[code](message)
    return Unavailable(message) if code >= 500 else Invalid(message)


def _causes(body: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    details = body.get("details")
    causes = details.get("causes") if isinstance(details, Mapping) else None
    return [c for c in causes if isinstance(c, Mapping)] if isinstance(causes, list) else []


def _retry_after(headers: Mapping[str, str]) -> float:
    text = headers.get("Retry-After", "")
    asked = float(text) if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) else _PAUSE_SECONDS
    return min(max(asked, 0.1), _LONGEST_PAUSE_SECONDS)
