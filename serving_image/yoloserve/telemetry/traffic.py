"""Where a picture came from: what callers ask is counted apart from what a release asks itself."""

import enum


class Traffic(enum.StrEnum):
    """Whose picture it is; in metrics the label `source`."""

    REQUEST = "request"  # a caller's
    SHADOW = "shadow"  # another revision's, of what its callers sent; nobody waits for the answer
    GOLDEN = "golden"  # of the set of pictures whose objects are known
    PROBE = "probe"  # the one by which the server watches whether it sees
