"""Everything that can go wrong, sorted by who must act.

YoloserveError
├── StartupFailure             whoever deployed the server; it exits 78 and leaves the reason behind
│   ├── InvalidSettings        an option that cannot be meant, or two that exclude each other
│   ├── ModelNotFound          nothing at that address
│   ├── ModelDownloadFailed    something is there, but it did not arrive
│   ├── DigestMismatch         it arrived, and is not what was asked for
│   ├── ClassesDiffer          the model does not detect what its user expects
│   ├── ModelUnsupported       a format, task or output this server cannot read
│   ├── BackendUnsupported     a runtime or precision this image or device does not have
│   ├── ParityFailed           a conversion does not see what its source sees
│   └── BlindModel             it loads and answers, but does not see
└── Refusal                    the caller; told as {"error": {"code", "message"}}; HTTP: replies.py
    ├── BadImage               the bytes sent
    │   ├── UnsupportedMediaType
    │   ├── InvalidImage
    │   ├── TooLarge
    │   └── TooManyPixels
    ├── InvalidParameter       an option of the request
    ├── UnknownModel           the name or version in a path of the Open Inference Protocol
    ├── UrlRefused             the address of a picture, which this server may not ask
    ├── UrlFailed              the server at that address
    ├── FetchesFull            nobody: other addresses are waited for; try again a little later
    ├── Unauthorized           the client's credentials
    ├── KeysUnavailable        the admin: nobody can say whether a token is valid
    ├── ForeignOrigin          a page of another site
    ├── SlowBody               an upload that takes for ever
    ├── OverQuota              a client that sends more than it may
    ├── Blind                  nobody: the server has stopped seeing, and will restart
    ├── Overloaded             nobody: try again a little later
    └── TooLate                nobody: no answer could be ready before the deadline
"""

import enum
import re
import reprlib
from typing import ClassVar

LONGEST_QUOTE = 100
_CUT = reprlib.Repr()
_CUT.maxstring = _CUT.maxother = LONGEST_QUOTE


def quoted(value: object) -> str:
    """Write what was sent as a refusal quotes it: cut, whatever its size, and cheap to cut."""
    return _CUT.repr(value)


class YoloserveError(Exception):
    """Anything this package refuses to do; the message says what to do about it."""


WORD = re.compile(r"\S+")
ENDS_OF_WORDS = ",;.:!'\"`)]}>"


def without_credentials(text: str) -> str:
    """Cut users, passwords and queries off all addresses in a text: a query may be a signature."""
    return WORD.sub(lambda word: bare(word[0]), text)


def bare(word: str) -> str:
    """Cut what is secret off a word if it is an address; in doubt more.

    A password may have any of `@/?:'"` in it. What is before the last @ goes, but for a path's.
    """
    scheme, found, rest = word.partition("://")
    if not found:
        return word
    address = rest.rstrip(ENDS_OF_WORDS)
    end = rest[len(address) :]
    user, at, after = address.rpartition("@")
    if at and not _is_of_a_path(user, scheme):
        address = f"…@{after}"
    address, query, _ = address.partition("?")
    return scheme + found + address + (query and "?…") + end


HOST_WITH_PORT = re.compile(r"[\w.-]+:\d{1,5}|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")
NO_USERS = ("demo", "file", "oci", "pvc", "s3")


def _is_of_a_path(before: str, scheme: str) -> bool:
    """Say whether the @ after `before` is one of a path: `https://HOST:8443/gate@v7/best.onnx`.

    What reads like a host and its port is one, as each URL parser has it: nobody can tell a user
    whose password goes on with a / after five digits at most, and no client would send that one.
    """
    host, slash, _ = before.partition("/")
    if not slash:
        return False
    if HOST_WITH_PORT.fullmatch(host) or ":" not in before:
        return True
    return ":" not in host and scheme.endswith(NO_USERS)


class StartupFailure(YoloserveError):
    """The server cannot serve what it was asked to; `reason` is a constant for machines.

    Its message reaches logs, the detector's status and Events: no address in it keeps credentials.
    """

    def __init__(self, message: str) -> None:
        super().__init__(without_credentials(message))

    @property
    def reason(self) -> str:
        """Name the failure, as it appears in the termination log and in the detector's status."""
        return type(self).__name__


class InvalidSettings(StartupFailure):
    """An option has a value that cannot be meant."""


class ModelNotFound(StartupFailure):
    """There is no model at the address given."""


class ModelDownloadFailed(StartupFailure):
    """The model's server did not hand it over."""


class DigestMismatch(StartupFailure):
    """The file is not the one whose digest was given."""


class ClassesDiffer(StartupFailure):
    """The model's class names are not the expected ones, in the expected order."""


class ModelUnsupported(StartupFailure):
    """The file is no detection model this server can read."""


class BackendUnsupported(StartupFailure):
    """The runtime or precision asked for is not available here."""


class ParityFailed(StartupFailure):
    """A converted model differs more from its source than its precision excuses."""


class BlindModel(StartupFailure):
    """The model runs but misses the objects it is known to find."""


class Refusal(YoloserveError):
    """One request cannot be answered; `code` is a constant for machines."""

    code: ClassVar[str]
    retry_after_s: int | None = None  # when it may be worth asking again


class BadImage(Refusal):
    """The body is not an image this server takes."""


class UnsupportedMediaType(BadImage):
    """The body is of a type that is not decoded here."""

    code = "unsupported_media_type"


class InvalidImage(BadImage):
    """The body starts like an image and does not end like one."""

    code = "invalid_image"


class TooLarge(BadImage):
    """The body has more bytes than allowed."""

    code = "too_large"


class TooManyPixels(BadImage):
    """The image has more pixels than allowed; nothing was decoded."""

    code = "too_many_pixels"


class InvalidParameter(Refusal):
    """An option of the request has a value that cannot be meant."""

    code = "invalid_parameter"


class UnknownModel(Refusal):
    """The model or version asked for is not the one served here."""

    code = "unknown_model"


class UrlRefused(Refusal):
    """The picture's address is not one that may be asked."""

    code = "url_refused"


class UrlFailed(Refusal):
    """The picture's address was asked, and gave none."""

    code = "url_failed"


class FetchesFull(Refusal):
    """No place to fetch a picture became free; not `Overloaded`: more replicas need not help."""

    code = "fetches_full"
    retry_after_s = 5


class Unauthorized(Refusal):
    """No credentials, or none that are known here."""

    code = "unauthorized"


class ForeignOrigin(Refusal):
    """A page of another site would use its visitor's credentials."""

    code = "foreign_origin"


class KeysUnavailable(Refusal):
    """The keys that tokens are checked with have not been read yet."""

    code = "keys_unavailable"
    retry_after_s = 10


class SlowBody(Refusal):
    """The body did not arrive in time."""

    code = "slow_body"


class OverQuota(Refusal):
    """This client has sent as many images as it may for now."""

    code = "over_quota"

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Blind(Refusal):
    """The network's answer to a known picture is not what it was."""

    code = "blind"
    retry_after_s = 5


class Overloaded(Refusal):
    """More is waiting already than can be answered in time."""

    code = "overloaded"
    retry_after_s = 1  # the shortest there is: a queue of half a deadline is gone by then


class Miss(enum.StrEnum):
    """Where a deadline was missed; only the last one cost any work of the engine."""

    ARRIVED = "arrival"  # it had passed before the work began
    DROPPED = "queue"  # dropped before the engine ran: it would have been late
    LATE = "answer"  # computed, and late all the same


class TooLate(Refusal):
    """The answer would be, or is, past its deadline."""

    code = "deadline_exceeded"

    def __init__(self, message: str, miss: Miss) -> None:
        super().__init__(message)
        self.miss = miss
