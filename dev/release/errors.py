"""What can go wrong, beside what `cluster.errors` tells of commands.

ReleaseError
├── Refused       the person: something has to be put in order first; nothing was pushed
└── WrongResult   us: everything ran, and what came out is not what we promise
"""


class ReleaseError(Exception):
    """Any failure that this package explains."""


class Refused(ReleaseError):
    """Says every reason why this is not released, and what to do."""


class WrongResult(ReleaseError):
    """A promise was broken."""
