"""API keys from a file."""

import hashlib
import hmac
import logging
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from yoloserve.access.clients import Client
from yoloserve.errors import InvalidSettings, Unauthorized
from yoloserve.rereading import Reread

log = logging.getLogger(__name__)

LEAST_KEY_LENGTH = 16
LOOK_AGAIN_S = 1.0  # how soon a changed file of keys is seen
HASHED = re.compile(r"sha256:([0-9a-f]{64})")
COMMENT = re.compile(r"(?<!\S)#.*")  # inside of a word `#` is a part of it: of a key, say


@dataclass(frozen=True, slots=True)
class _Key:
    digest: bytes
    client: Client


class ApiKeys:
    """The keys in a file, read again when it changes.

    A line for each: a name, the key or `sha256:` and its digest in hex, and if wanted the images a
    second that this client may send. A word that begins with `#` begins a comment.
    """

    def __init__(self, file: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = Reread(file, read_keys, every_s=LOOK_AGAIN_S, clock=clock)

    def client(self, key: str) -> Client:
        """Tell whose key it is; raise `Unauthorized` for nobody's."""
        if (found := self.find(key)) is None:
            raise Unauthorized("the API key is not known here")
        return found

    def find(self, key: str) -> Client | None:
        """Tell whose key it is, if it is anybody's."""
        self._look_again()
        digest = hashlib.sha256(key.encode()).digest()
        found = None
        for known in self._keys.content:  # all of them: the time tells nothing
            if hmac.compare_digest(known.digest, digest):
                found = known.client
        return found

    def _look_again(self) -> None:
        try:
            if self._keys.look():
                log.info("api keys read again", extra={"keys": len(self._keys.content)})
        except InvalidSettings as error:
            log.warning("api keys not read again", extra={"reason": str(error)})


def read_keys(file: Path) -> list[_Key]:
    """Read a file of keys; raise `InvalidSettings` naming the line, never the key."""
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"cannot read the API keys in {file}: {error}") from error
    keys = []
    for number, line in enumerate(lines, 1):
        words = COMMENT.sub("", line).split()
        if not words:
            continue
        where = f"{file}, line {number}"
        if len(words) not in (2, 3):
            raise InvalidSettings(f"{where}: expected a name, a key and perhaps a quota")
        name, key, *quota = words
        if hashed := HASHED.fullmatch(key):
            digest = bytes.fromhex(hashed[1])
        elif key.startswith("sha256:") or len(key) < LEAST_KEY_LENGTH:
            raise InvalidSettings(
                f"{where}: a key has at least {LEAST_KEY_LENGTH} characters, or is sha256: and 64 "
                "hex digits"
            )
        else:
            digest = hashlib.sha256(key.encode()).digest()
        keys.append(_Key(digest, Client(name, _quota(quota[0], where) if quota else None)))
    return keys


def _quota(word: str, where: str) -> float:
    """Read images a second; 0: as many as the client likes."""
    try:
        per_second = float(word)
    except ValueError:
        per_second = math.nan
    if not 0 <= per_second < math.inf:  # of no number nothing is true
        raise InvalidSettings(f"{where}: the quota {word!r} is no number from 0 on")
    return per_second
