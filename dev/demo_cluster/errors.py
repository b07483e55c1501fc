"""What can go wrong, sorted by who must act.

DemoError
├── KubectlFailed   the person: the API server refused, or is not there; says what kubectl said
├── TookTooLong     the person: something did not come true in time; says what was seen last
└── WrongResult     us: everything ran, and what came out is not what we promise
"""


class DemoError(Exception):
    """Any failure that this package explains."""


class KubectlFailed(DemoError):
    """kubectl ended with an error; carries what it said."""


class TookTooLong(DemoError):
    """Something did not come true in time."""


class WrongResult(DemoError):
    """A promise was broken."""


class NotYet(Exception):
    """What `eventually` waits for has not come true; says what is there instead."""
