"""Kubernetes quantities ("500m", "2Gi", 0.5) in one spelling: equal amounts compare equal.

Source: apimachinery's `resource.Quantity`, canonical form.
"""

import re
from decimal import Decimal

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


def amount(quantity: str | int | float) -> Decimal:
    """Return the number that `quantity` stands for. Raises ValueError."""
    match = _QUANTITY.fullmatch(str(quantity).strip())
    if match is None:
        raise ValueError(f"{quantity!r} is not a quantity; write it as 500m, 2 or 4Gi")
    number, exponent, suffix = match.groups()
    return Decimal(number + (exponent or "")) * _SUFFIX[suffix or ""]


def canonical(quantity: str | int | float) -> str:
    """Spell `quantity` as the API server would: no fraction, the largest suffix of its kind."""
    number = amount(quantity)
    if number == 0:
        return "0"
    if str(quantity).endswith("i"):
        for suffix in ("Ei", "Pi", "Ti", "Gi", "Mi", "Ki"):
            if number % _SUFFIX[suffix] == 0:
                return f"{int(number / _SUFFIX[suffix])}{suffix}"
    for suffix in ("E", "P", "T", "G", "M", "k", "", "m", "u", "n"):
        if number % _SUFFIX[suffix] == 0:
            return f"{int(number / _SUFFIX[suffix])}{suffix}"
    raise ValueError(f"{quantity!r} is finer than a quantity can be (1n)")
