"""Fills the holes of a template; knows no kind.

A template reads like the manifest it makes. Its holes take one finished value each, as JSON, which
is YAML: nothing breaks out, and "on" or "0755" stay strings. A hole given None drops its key.
"""

import json
import re
from functools import lru_cache
from typing import Any

import jinja2
import orjson
import yaml

from yolofleet.api.names import Manifest

_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
"""What JSON may hold as it is and YAML 1.1 may not (YAML 1.1, section 5.1)."""

_EXPONENT = re.compile(r"(?<=[0-9])(?=e[+-][0-9])")
"""Where YAML 1.1 wants a point in a number: it reads `1e-07` as a string, `1.0e-07` as a number."""


def _encoded(value: Any) -> str:
    """Write JSON with numbers as YAML 1.1 reads them back; `json` cannot be told how."""
    if isinstance(value, dict):
        pairs = (f"{_encoded(str(key))}: {_encoded(inner)}" for key, inner in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_encoded, value)) + "]"
    text = json.dumps(value, ensure_ascii=False)
    if isinstance(value, float) and "." not in text:
        return _EXPONENT.sub(".0", text)
    return text


def as_json(value: Any) -> str:
    """Return `value` as JSON that YAML 1.1 reads back equal. Raises for an unset hole."""
    if isinstance(value, jinja2.Undefined):
        str(value)  # StrictUndefined raises, and names the hole
    text = _encoded(value)
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


_templates = jinja2.Environment(
    loader=jinja2.PackageLoader("yolofleet.resources", "templates"),
    undefined=jinja2.StrictUndefined,
    finalize=as_json,
    autoescape=False,
)
_templates.globals.clear()  # an unset `namespace` would otherwise be Jinja's own class of that name


def render(template: str, **holes: Any) -> Manifest:
    """Return the manifest that `template` makes of `holes`; the caller may change it."""
    text = _templates.get_template(template).render(**holes)
    copy: Manifest = orjson.loads(_parsed(text))
    return copy


@lru_cache(maxsize=16_384)
def _parsed(text: str) -> bytes:
    """Return the manifest in `text` as JSON. Parsing YAML costs 100 times the rest: once a text."""
    return orjson.dumps(_without_none(yaml.load(text, Loader=yaml.CSafeLoader)))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_none(v) for v in value]
    return value
