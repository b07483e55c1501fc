"""Addresses as they may be shown: a user and password, or a query (a signature), is a secret."""

import re
from typing import Final

_WORD: Final = re.compile(r"\S+")
_ENDS_OF_WORDS: Final = ",;.:!'\"`)]}>"


def without_credentials(text: str) -> str:
    """Return `text` with addresses that have neither user and password nor a query."""
    return _WORD.sub(lambda word: bare(word[0]), text)


def bare(word: str) -> str:
    """Return a word without what is secret if it is an address; in doubt without more.

    A password may have any of `@/?:'"` in it. What is before the last @ goes, but for a path's.
    """
    scheme, found, rest = word.partition("://")
    if not found:
        return word
    address = rest.rstrip(_ENDS_OF_WORDS)
    end = rest[len(address) :]
    user, _, after = address.rpartition("@")
    if not _is_of_a_path(user, scheme):
        address = after
    return scheme + found + address.partition("?")[0] + end


_HOST_WITH_PORT: Final = re.compile(r"[\w.-]+:\d{1,5}|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")
_NO_USERS: Final = ("demo", "file", "oci", "pvc", "s3")


def _is_of_a_path(before: str, scheme: str) -> bool:
    """Say whether the @ after `before` is one of a path: `https://HOST:8443/gate@v7/best.onnx`.

    What reads like a host and its port is one, as each URL parser has it: nobody can tell a user
    whose password goes on with a / after five digits at most, and no client would send that one.
    """
    host, slash, _ = before.partition("/")
    if not slash:
        return False
    if _HOST_WITH_PORT.fullmatch(host) or ":" not in before:
        return True
    return ":" not in host and scheme.endswith(_NO_USERS)
