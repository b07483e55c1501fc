"""Who may be connected: how many at a time, and who makes room when there are no more.

Told here and nowhere else, and without a socket: `http_protocol` says what its connections do.
"""

import enum
import ipaddress
import math
import time
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Protocol

from yoloserve.scheduling.admission import KEPT_PART, has_its_share

AT_THE_DOOR = 512  # beyond all places, to hear who it is: a burst's, which all come at once
READ_WITHIN_S = 1.0  # what a client sent at once has been read then
TIMEOUT = 3008  # what a stream that kept us waiting is closed with (the registry of RFC 6455)
IPV6_OF_ONE = 64  # bits: what one customer of a network has


class Cut(enum.StrEnum):
    """Why the server ended a connection."""

    SILENT = "silent"  # it never asked anything
    SLOW_HEAD = "slow_head"
    LARGE_HEAD = "large_head"
    SLOW_REST = "slow_rest"  # of a body that was refused unread
    BAD = "bad_request"  # no HTTP
    PIPELINED = "pipelined"  # more requests than may be sent ahead
    UNREAD = "unread"  # it does not read its answers
    MADE_ROOM = "made_room"  # idle, when another came and all places were taken
    STREAM_IDLE = "stream_idle"  # no frame for long
    STREAM_SLOW = "stream_slow"  # a frame that does not come to its end
    STREAM_OVERLOADED = "stream_overloaded"  # a frame that comes when requests hold too much
    STREAM_UNAUTHORIZED = "stream_unauthorized"  # its key or token is not valid any more
    FULL = "full"  # no place was left for it, nor anybody to make room


class Connection(Protocol):
    """What is needed of one."""

    def cut(self) -> None:
        """End it, now."""


Line = OrderedDict[Connection, float]  # since when it waits, the longest first
NOBODY: Line = OrderedDict()


class Connections:
    """The places of all open connections.

    Whoever comes when all are taken has the place of somebody idle: first of who never asked
    anything, then of who was answered, each time of the client that has most of those, the one that
    has been idle for longest. Where nobody is idle there is the door: to be heard, and let in only
    to look after the server (see `middleware.Door`).

    Nobody is silent who has just come: of a burst, many are accepted before any of them is read.
    And no burst displaces more idle connections than it leaves.

    A client is an address, and a gateway with all clients behind it is one, too. So there is no
    limit on a client but that the last places are not for one that has half of them: it has those
    of its own idle connections, then those of others', and never the last eighth.
    """

    def __init__(
        self,
        most: int,
        cut: Callable[[Cut], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.most = most
        self.cut = cut  # counts
        self._clock = clock
        self._client_of: dict[Connection, str] = {}
        self._held: Counter[str] = Counter()
        # In the order in which they came to wait, of each client.
        self._silent: defaultdict[str, Line] = defaultdict(OrderedDict)
        self._idle: defaultdict[str, Line] = defaultdict(OrderedDict)
        self._line_of: dict[Connection, Line] = {}
        self._door: Line = OrderedDict()
        self._heard: set[Connection] = set()  # of those at the door

    @property
    def open(self) -> int:
        """Count those that have a place."""
        return len(self._client_of)

    def enter(self, connection: Connection, address: str) -> bool:
        """Give a place to who has come, or say that there is none but at the door."""
        client = network_of(address)
        held = self._held[client]
        if has_its_share(held, self.open, self.most):
            leaves = _first_of(self._unheard(self._silent[client]), self._idle[client])
            if leaves is None and held < self.most - self.most // KEPT_PART:
                leaves = self._anybody_for(client)
        elif self.open >= self.most:
            leaves = self._anybody_for(client)
        else:
            self._seat(connection, client)
            self._keep_the_door()
            return True
        if leaves is None:
            self._door[connection] = self._clock()
            self._keep_the_door()
            return False
        self._cut(leaves, Cut.MADE_ROOM)
        self._seat(connection, client)
        return True

    def asks(self, connection: Connection) -> None:
        """Hear that the head of a request is there."""
        line = self._line_of.pop(connection, None)
        if line is not None:
            del line[connection]
        elif connection in self._door:
            del self._door[connection]
            self._heard.add(connection)

    def rests(self, connection: Connection) -> None:
        """Hear that all requests are answered."""
        if (client := self._client_of.get(connection)) is not None:
            self._wait(connection, self._idle[client])

    def leave(self, connection: Connection) -> None:
        """Hear that it has ended, or is none of HTTP any more; perhaps not for the first time."""
        self.asks(connection)
        self._heard.discard(connection)
        if (client := self._client_of.pop(connection, None)) is not None:
            self._held[client] -= 1
            if not self._held[client]:
                del self._held[client]
                self._silent.pop(client, None)
                self._idle.pop(client, None)

    def _seat(self, connection: Connection, client: str) -> None:
        self._client_of[connection] = client
        self._held[client] += 1
        self._wait(connection, self._silent[client])

    def _wait(self, connection: Connection, line: Line) -> None:
        line[connection] = self._clock()
        self._line_of[connection] = line

    def _anybody_for(self, client: str) -> Connection | None:
        """Find who makes room for a client, if anybody does."""
        silent, idle = map(self._unheard, self._silent.values()), self._idle.values()
        may_displace = sum(map(len, idle)) > len(self._silent.get(client, ()))
        return _first_of(_longest(silent), _longest(idle) if may_displace else NOBODY)

    def _unheard(self, silent: Line) -> Line:
        """Say who can make room of those that said nothing: nobody if none had time to be read."""
        since = next(iter(silent.values()), math.inf)
        return silent if since + READ_WITHIN_S <= self._clock() else NOBODY

    def _keep_the_door(self) -> None:
        """Let wait there whom there are files for; the first has had its time to be heard."""
        waiting = len(self._door) + len(self._heard)
        if self._door and self.open + waiting > self.most + AT_THE_DOOR:
            self._cut(next(iter(self._door)), Cut.FULL)

    def _cut(self, connection: Connection, why: Cut) -> None:
        self.leave(connection)
        self.cut(why)
        connection.cut()


def _longest(lines: Iterable[Line]) -> Line:
    return max(lines, key=len, default=NOBODY)


def _first_of(*lines: Line) -> Connection | None:
    return next(chain.from_iterable(lines), None)


def network_of(address: str) -> str:
    """Name the client at an address: an IPv6 host has as many addresses as it likes."""
    if ":" not in address:
        return address
    try:
        found = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if found.ipv4_mapped:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(found), IPV6_OF_ONE), strict=False))
