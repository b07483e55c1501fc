"""Kubernetes quantities ("500m", "2Gi", 0.5) in one spelling: equal amounts compare equal.

Source: apimachinery's `resource.Quantity`, canonical form.
"""

import re
from decimal import ROUND_UP, Context, Decimal

from yolofleet.runtime.quoting import quoted

_SUFFIX = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal("1e3"),
    "M": Decimal("1e6"),
    "G": Decimal("1e9"),
    "T": Decimal("1e12"),
    "P": Decimal("1e15"),
    "E": Decimal("1e18"),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}
_QUANTITY = re.compile(r"([+-]?(?:\d+(?:\.\d*)?|\.\d+))(?:([eE][+-]?\d+)|([numkMGTPE]|[KMGTPE]i)?)")
PATTERN = r"^[+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)?$"
"""What the CRD accepts: no negative amounts."""

NANO, MILLI = Decimal("1e-9"), Decimal("1e-3")
"""The finest step of a quantity, and that of requests and limits: less is rounded up to it."""

_EXACT = Context(prec=200, rounding=ROUND_UP)
_TOO_MUCH = Decimal("1e60")


def amount(quantity: object) -> Decimal:
    """Return the number that `quantity`, as YAML has it, stands for. Raises ValueError."""
    match = None if isinstance(quantity, bool) else _QUANTITY.fullmatch(str(quantity).strip())
    if match is None:
        raise ValueError(f"{quoted(quantity)} is not a quantity; write it as 500m, 2 or 4Gi")
    number, exponent, suffix = match.groups()
    power = max(-60, min(60, int(exponent[1:]))) if exponent else 0
    written = _EXACT.scaleb(_EXACT.create_decimal(number), power)
    exact = _EXACT.multiply(written, _SUFFIX[suffix or ""])
    if abs(exact) >= _TOO_MUCH:
        raise ValueError(f"{quoted(quantity)} is more than a quantity can be")
    return exact.quantize(NANO, context=_EXACT)


def canonical(quantity: str | int | float) -> str:
    """Spell `quantity` as the API server would: no fraction, the largest suffix of its kind.

    Amounts can be equal and spelled unlike by this (1Gi, 1073741824): names of revisions depend on
    it, so it stays. `spelled` is for comparing.
    """
    number = amount(quantity)
    if number == 0:
        return "0"
    decimal = ("E", "P", "T", "G", "M", "k", "", "m", "u")
    binary = ("Ei", "Pi", "Ti", "Gi", "Mi", "Ki") if str(quantity).endswith("i") else ()
    for suffix in (*binary, *decimal):
        if _EXACT.remainder(number, _SUFFIX[suffix]) == 0:
            return f"{int(_EXACT.divide(number, _SUFFIX[suffix]))}{suffix}"
    return f"{int(_EXACT.divide(number, NANO))}n"


def spelled(quantity: object, step: Decimal = NANO) -> str:
    """Spell equal amounts alike: as a plain number of whole steps. Raises ValueError."""
    return f"{amount(quantity).quantize(step, context=_EXACT).normalize(_EXACT):f}"
