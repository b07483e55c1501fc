"""What one pod says of itself: `GET /evidence`, raw counters since its process began.

A pod runs what a user gave it, so nothing here is believed: sizes are bounded, and what cannot be
read is a reason in words, never an exception and never evidence.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from yolofleet.api.typed import mere_words

FORMAT = 1
MOST_BYTES = 1024 * 1024
MOST_VALUES = 20_000  # of any kind; servers tell some thousands
_MOST_CLASSES = 80
_MOST_SEEN = 2000  # Prometheus gets all classes of a model, beyond the table that a pod sends
_MOST_PAIRS = 200
_MOST_CANARIES = 4
_LONGEST_MESSAGE = 400


def _at_most(number: int) -> BeforeValidator:
    """Refuse more before any is looked at: pydantic notes what is wrong with each of them first.

    A list becomes a tuple: once it was looked at here, pydantic takes it for one of Python's own.
    """

    def few(told: Any) -> Any:
        if isinstance(told, dict | list | tuple) and len(told) > number:
            raise ValueError(f"has more than {number}")
        return tuple(told) if isinstance(told, list) else told

    return BeforeValidator(few)


def _few_pairs(confused: Any) -> Any:
    if isinstance(confused, dict):
        inner = (len(called) for called in confused.values() if isinstance(called, dict))
        if len(confused) > _MOST_PAIRS or sum(inner) > _MOST_PAIRS:
            raise ValueError(f"has more than {_MOST_PAIRS} pairs of classes")
    return confused


Count = Annotated[int, Field(ge=0, le=2**53)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Name = Annotated[str, Field(max_length=256), AfterValidator(mere_words)]
Message = Annotated[str, AfterValidator(lambda said: mere_words(said[:_LONGEST_MESSAGE]))]

Sizes = Annotated[tuple[Count, Count, Count], _at_most(3)]
"""Of small, medium and large objects."""


class _Reported(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class Histogram(_Reported):
    """Counts by bucket; of the buckets from `first` on."""

    first: Annotated[int, Field(ge=0, le=98)] = 0
    counts: Annotated[tuple[Count, ...], _at_most(99)] = ()

    def whole(self) -> tuple[int, ...]:
        """Return the counts of all 99 buckets."""
        counts = (0,) * self.first + self.counts
        return (*counts[:99], *(0,) * (99 - len(counts)))


class Probe(_Reported):
    """The looks at a picture of its own."""

    sees: Count = 0
    blind: Count = 0
    blind_in_a_row: Count = 0


class Golden(_Reported):
    """The run over the pictures whose objects are known."""

    set_sha256: Annotated[str, Field(max_length=64)] = ""
    state: Annotated[str, Field(max_length=32)] = ""
    images: Count = 0
    map50: Annotated[float, Field(ge=0, le=1)] | None = None
    message: Message = ""


class Load(_Reported):
    """How much the pod can carry, and what was asked of it. None: its server does not tell that."""

    offered: Count | None = None
    inside_seconds: Annotated[Number, Field(ge=0)] | None = None
    capacity_per_second: Annotated[Number, Field(ge=0)] | None = None  # None: not known yet


class Frames(_Reported):
    """What became of the copies of requests."""

    compared: Count = 0
    failed: Count = 0
    late: Count = 0
    skipped_busy: Count = 0
    skipped_size: Count = 0
    skipped_rate: Count = 0
    skipped_options: Count = 0
    skipped_repeated: Count = 0  # 0 of an older server, which shows them again and again
    unreachable: Count = 0


class Compute(_Reported):
    """How long the same pictures took, without queueing."""

    stable: Histogram = Histogram()
    canary: Histogram = Histogram()


BySize = Annotated[dict[Name, Sizes], _at_most(_MOST_CLASSES)]
ByClass = Annotated[dict[Name, Count], _at_most(_MOST_CLASSES)]


class Shadow(_Reported):
    """How the answers of another revision to the same pictures compare with this pod's own."""

    frames: Frames = Frames()
    expected: BySize = {}
    kept: BySize = {}
    confused: Annotated[dict[Name, dict[Name, Count]], BeforeValidator(_few_pairs)] = {}
    sure: ByClass = {}
    only_stable: ByClass = {}  # sure objects of a class that the other model does not have
    only_canary: ByClass = {}
    seen: Count = 0
    blind: Count = 0
    compute: Compute = Compute()


Outcomes = Annotated[dict[Annotated[str, Field(max_length=64)], Count], _at_most(32)]


class Evidence(_Reported):
    """All that a pod has counted since its process began."""

    format: Literal[1]
    revision: Annotated[str, Field(max_length=63)]
    started: Number
    status: Annotated[str, Field(max_length=64)] = ""
    requests: Annotated[dict[str, Outcomes], _at_most(8)] = {}
    images_squared: Outcomes | None = None
    """Of pictures, how many their requests have, added up; None: its server does not tell that."""
    images: Count = 0
    detections: Annotated[dict[Name, Count], _at_most(_MOST_SEEN)] = {}
    latency: Annotated[dict[str, Histogram], _at_most(8)] = {}
    load: Load = Load()
    probe: Probe | None = None
    golden: Golden | None = None
    shadow: Annotated[dict[str, Shadow], _at_most(_MOST_CANARIES)] = {}

    def of_requests(self) -> dict[str, int]:
        """Return what became of requests that somebody waited for."""
        return self.requests.get("request", {})


def parse(body: bytes, *, revision: str) -> Evidence | str:
    """Read what a pod of `revision` answered, or say in words why that is no evidence."""
    if len(body) > MOST_BYTES:
        return f"answers with more than {MOST_BYTES // 1024} KiB"
    if _has_too_many(body):
        return f"answers with more than {MOST_VALUES:,} values"
    try:
        evidence = Evidence.model_validate_json(body)
    except ValidationError as error:
        return problem(error)
    if evidence.revision != revision:
        return f"says that it is of {evidence.revision!r}, not of {revision}"
    return evidence


def _has_too_many(body: bytes) -> bool:
    """Say whether there are more values than `MOST_VALUES`, before they are made, and judged.

    What looks like one in a string, the name of a class for example, is none.
    """
    marks = b",", b"[", b"{"
    if sum(map(body.count, marks)) <= MOST_VALUES:
        return False
    if body.count(b'"') > 4 * MOST_VALUES:
        return True
    outside = b"".join(body.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')[::2])
    return sum(map(outside.count, marks)) > MOST_VALUES


def problem(invalid: ValidationError) -> str:
    """Say the first thing that is wrong, without what was sent: that may be of any length."""
    error = invalid.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(part)[:40] for part in error["loc"])
    if where == "format":
        return f"answers in a format other than {FORMAT}: its server is of another version"
    return f"answers what is no evidence ({where + ': ' if where else ''}{error['msg'][:80]})"
