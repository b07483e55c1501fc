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

    A password may have any of `@/?:'"` in it. What is before the last @ goes, but for a plain
    path's, and a digest's (oci://).
    """
    scheme, found, rest = word.partition("://")
    if not found:
        return word
    address = rest.rstrip(_ENDS_OF_WORDS)
    end, (address, digest, of) = rest[len(address) :], address.partition("@sha256:")
    user, _, after = address.rpartition("@")
    if ":" in user or "/" not in user:
        address = after
    return scheme + found + (address + digest + of).partition("?")[0] + end
