"""What a front and the engine's process say to each other: typed messages over a socket pair.

Each is a MessagePack array behind its length, four bytes, little-endian. What comes from a front
is checked against these types: a front has met what strangers send.
"""

import asyncio
import struct
from collections.abc import Callable
from typing import Annotated, Generic, TypeVar, cast

import msgspec
import numpy as np
from msgspec import Meta, Struct

from yoloserve.detections.postprocess import Detections

M = TypeVar("M")
LENGTH = struct.Struct("<I")
MOST_ASKED_BYTES = 16 * 2**20  # a picture that is shown to another revision has half of it
MOST_ANSWERED_BYTES = 2**30  # our own word is not doubted

Count = Annotated[int, Meta(ge=0)]
Side = Annotated[int, Meta(ge=1, le=2**31)]
Share = Annotated[float, Meta(ge=0, le=1)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
Images = Annotated[int, Meta(ge=1, le=1024)]  # of one request
Text = Annotated[str, Meta(max_length=4096)]
Name = Annotated[str, Meta(max_length=2**20)]  # a client's may come from a token as long as a head
Header = tuple[bytes, bytes]


class _Message(Struct, array_like=True, tag=True, gc=False):
    """One message; its name comes first."""


class Objects(Struct, array_like=True, frozen=True, gc=False):
    """Detections: boxes (N, 4) and scores (N,) as float32, classes (N,) as int64."""

    boxes: bytes
    scores: bytes
    classes: bytes

    @classmethod
    def of(cls, found: Detections) -> "Objects":
        """Write them."""
        return cls(
            np.ascontiguousarray(found.boxes, np.float32).tobytes(),
            np.ascontiguousarray(found.scores, np.float32).tobytes(),
            np.ascontiguousarray(found.classes, np.int64).tobytes(),
        )

    def read(self) -> Detections:
        """Read them; raises `ValueError` if they are not equally many."""
        boxes = np.frombuffer(self.boxes, np.float32).reshape(-1, 4)
        scores = np.frombuffer(self.scores, np.float32)
        classes = np.frombuffer(self.classes, np.int64)
        if not len(boxes) == len(scores) == len(classes):
            raise ValueError(f"{len(boxes)} boxes, {len(scores)} scores, {len(classes)} classes")
        return Detections(boxes, scores, classes)


# A front's. `id` is its own number of what it waits for.


class Listening(_Message):
    """It takes connections."""


class Check(_Message):
    """Is there a place for this client's camera?"""

    id: Count
    client: Name
    camera: Name


class Admit(_Message):
    """It asks for a place, and for memory to make a tensor in."""

    id: Count
    deadline: float
    client: Name
    camera: Name


class Look(_Message):
    """The tensor of a picture of this size is in its place's memory: what is in it?"""

    id: Count  # of the place
    width: Side
    height: Side
    confidence: Share
    iou: Share
    max_detections: Annotated[int, Meta(ge=1, le=10_000)]
    classes: list[Count] | None
    agnostic_nms: bool
    below: Share
    decode_s: Seconds
    preprocess_s: Seconds
    counts: bool


class Leave(_Message):
    """It needs no longer what it asked for under this number, or was given."""

    id: Count


class Spend(_Message):
    """Count images against a client's quota."""

    id: Count
    client: Name
    per_second: Annotated[float, Meta(gt=0)]
    images: Images
    paid: Count  # of the same request, before


class Stream(_Message):
    """It asks for a place for a client's stream."""

    id: Count
    client: Name


class Room(_Message):
    """It asks for memory to decode a big picture in, of so many pixels."""

    id: Count
    pixels: Count


class Ask(_Message):
    """A request that detects nothing, to be answered where all of it is known."""

    id: Count
    method: Text
    path: str
    query: bytes
    headers: list[Header]
    client: tuple[str, int] | None
    crowded: bool


class Answered(_Message):
    """One answer was sent in time; its stages in seconds, as `Timing` has them.

    How long its caller waited is told as a length of time: nobody reads the clock of another.
    """

    traffic: Text
    timing: tuple[Seconds, Seconds, Seconds, Seconds, Seconds, Seconds]
    waited: Seconds
    found: Objects
    among: Images


class Denied(_Message):
    """Pictures of one request got no detections."""

    code: Text
    traffic: Text
    images: Images
    among: Images


class Missed(_Message):
    """The deadline of one request was missed."""

    where: Text
    images: Images


class Served(_Message):
    """One request of HTTP was answered."""

    method: Text
    route: Text
    status: int
    seconds: Seconds


class Cut(_Message):
    """One connection was ended."""

    why: Text


class Gauges(_Message):
    """What it has now; `received` are all connections that it was ever given."""

    connections: Count = 0  # streams apart
    sockets: Count = 0  # of all clients
    active: Count = 0
    received: Count = 0


class Offer(_Message):
    """A picture that was answered, to be shown to another revision."""

    id: Count
    revision: Text
    picture: bytes
    as_file: bool
    nearly: Objects
    compute_s: Seconds


class Skipped(_Message):
    """Pictures that are not shown, and why."""

    revision: Text
    why: Text
    times: Count


class Pong(_Message):
    """It is there."""


class Leaving(_Message):
    """It takes no more connections, finishes what it has, and ends."""


Asked = (
    Listening
    | Check
    | Admit
    | Look
    | Leave
    | Spend
    | Stream
    | Room
    | Ask
    | Answered
    | Denied
    | Missed
    | Served
    | Cut
    | Gauges
    | Offer
    | Skipped
    | Pong
    | Leaving
)


# The engine's process's.


class Welcome(_Message):
    """The first word: all that a front has to know."""

    settings: bytes  # JSON
    info: bytes  # JSON of a `ModelInfo`
    fronts: int
    threads: int
    parallel: int
    slots: int
    slot_bytes: int


class Done(_Message):
    """So it is."""

    id: int


class Placed(_Message):
    """There is a place, with this slot of the memory."""

    id: int
    slot: int


class Refused(_Message):
    """A `Refusal`."""

    id: int
    code: str
    message: str
    miss: str | None
    retry_after_s: int | None


class Failed(_Message):
    """An error of the engine."""

    id: int
    message: str


class Found(_Message):
    """What is in a picture."""

    id: int
    found: Objects
    nearly: Objects | None
    queued_s: float
    computed: float
    postprocess_s: float


class Told(_Message):
    """The answer to an `Ask`."""

    id: int
    status: int
    headers: list[Header]
    body: bytes


class State(_Message):
    """What the whole server is now."""

    status: str = "starting"
    draining: bool = False
    roomy: bool = (
        False  # most places are free: it need not ask whether there is one before a body is read
    )


class Ping(_Message):
    """Is it there?"""


class Finish(_Message):
    """Answer what is under way, and end."""


Said = Welcome | Done | Placed | Refused | Failed | Found | Told | State | Ping | Finish
Reply = Done | Placed | Refused | Failed | Found | Told

_encode = msgspec.msgpack.Encoder().encode
ASKED = msgspec.msgpack.Decoder(Asked)
SAID = msgspec.msgpack.Decoder(Said)


class Broken(Exception):
    """What came is none of these messages."""


def name(said: str) -> str:
    """Write a name as it can be sent: what a client says of itself may be no Unicode."""
    return said if said.isascii() else said.encode(errors="replace").decode()


def frame(message: _Message) -> bytes:
    """Write a message as it goes over the socket."""
    written = _encode(message)
    return LENGTH.pack(len(written)) + written


class Frames(Generic[M]):
    """Cuts what comes into messages."""

    def __init__(self, decoder: "msgspec.msgpack.Decoder[M]", most: int) -> None:
        self._decode = decoder.decode
        self._most = most
        self._rest = bytearray()

    def feed(self, data: bytes, take: Callable[[M], None]) -> None:
        """Hand over each message that is whole now; raises `Broken`."""
        self._rest += data
        begin, size = 0, len(self._rest)
        with memoryview(self._rest) as view:
            while size - begin >= LENGTH.size:
                (length,) = LENGTH.unpack_from(view, begin)
                if length > self._most:
                    raise Broken(f"a message of {length} bytes")
                end = begin + LENGTH.size + length
                if end > size:
                    break
                try:
                    message = self._decode(view[begin + LENGTH.size : end])
                except msgspec.MsgspecError as error:
                    raise Broken(str(error)) from error
                begin = end
                take(message)
        del self._rest[:begin]


class Link(asyncio.Protocol, Generic[M]):
    """One end of the socket pair. What is sent in one turn of the loop goes in one write."""

    def __init__(
        self,
        decoder: "msgspec.msgpack.Decoder[M]",
        received: Callable[[M], None],
        lost: Callable[[Exception | None], None],
        most: int,
    ) -> None:
        self._frames = Frames(decoder, most)
        self._received = received
        self._lost = lost
        self._unsent: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        """Take what came; whoever says what is none of the messages is left."""
        try:
            self._frames.feed(data, self._received)
        except Exception as error:  # whatever a handler raises is the other's doing, too
            self.end(error)

    def connection_lost(self, error: Exception | None) -> None:
        """Say so, once."""
        self.end(error)

    def send(self, message: _Message) -> None:
        """Send a message, or drop it if nobody is there any more."""
        if self._transport is None:
            return
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(frame(message))

    def end(self, error: Exception | None = None) -> None:
        """Leave."""
        if (transport := self._transport) is not None:
            self._transport = None
            transport.abort()
            self._lost(error)

    def _flush(self) -> None:
        if self._transport is not None:
            self._transport.write(b"".join(self._unsent))
        self._unsent.clear()
