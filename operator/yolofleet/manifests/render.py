"""Fills the holes of a template; knows no kind.

A template reads like the manifest it makes. It is parsed once, and its holes take finished values
as they are: nothing breaks out of one, and "on" or 1e-05 stay what they were. A hole given None
drops its key.
"""

import json
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import jinja2
import orjson
import yaml
from jinja2 import meta

from yolofleet.api.names import Manifest

_MARK: Final = "hole: "
"""Begins the text by which a hole is known again once the YAML around it is parsed."""

_NULL: Final = b'":null'
_NULL_IN_TEXT: Final = b'\\":null'
"""The same in a text that is JSON itself, as records are."""

_templates = jinja2.Environment(
    loader=jinja2.PackageLoader("yolofleet.manifests", "templates"),
    undefined=jinja2.StrictUndefined,
    finalize=json.dumps,  # of marks, which makes a hole one whole value of the YAML around it
    autoescape=False,
)
_templates.globals.clear()  # an unset `namespace` would otherwise be Jinja's own class of that name


@dataclass(frozen=True, slots=True)
class _Hole:
    """Stands in a parsed template where a value will be."""

    name: str


def render(template: str, **holes: Any) -> Manifest:
    """Return the manifest that `template` makes of `holes`; the caller may change it."""
    tree, names = _parsed(template)
    if unset := names - holes.keys():
        raise jinja2.UndefinedError(f"{template}: {', '.join(sorted(unset))} is undefined")
    if left := frozenset(name for name, value in holes.items() if value is None):
        tree = _without(template, left)
    # Written as JSON and read back: that fills, and copies, many times faster than Python walks.
    text = orjson.dumps(
        tree, default=lambda hole: holes[hole.name], option=orjson.OPT_PASSTHROUGH_DATACLASS
    )
    filled: Manifest = orjson.loads(text)
    none = text.count(_NULL) > text.count(_NULL_IN_TEXT)
    return _without_none(filled) if none else filled


@cache
def _parsed(template: str) -> tuple[Any, frozenset[str]]:
    """Return `template` as a tree with holes, and the names of these."""
    assert _templates.loader is not None
    source, _, _ = _templates.loader.get_source(_templates, template)
    names = meta.find_undeclared_variables(_templates.parse(source))
    text = _templates.from_string(source).render({name: _MARK + name for name in names})
    return _with_holes(yaml.load(text, Loader=yaml.CSafeLoader)), frozenset(names)


@cache
def _without(template: str, holes: frozenset[str]) -> Any:
    """Return `template` as a tree without the keys whose value is one of `holes`."""
    return _dropped(_parsed(template)[0], holes)


def _dropped(node: Any, holes: frozenset[str]) -> Any:
    if isinstance(node, dict):
        kept = {key: _dropped(value, holes) for key, value in node.items()}
        return {k: v for k, v in kept.items() if not (isinstance(v, _Hole) and v.name in holes)}
    return [_dropped(item, holes) for item in node] if isinstance(node, list) else node


def _with_holes(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _with_holes(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_with_holes(item) for item in node]
    marked = isinstance(node, str) and node.startswith(_MARK)
    return _Hole(node.removeprefix(_MARK)) if marked else node


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return value
