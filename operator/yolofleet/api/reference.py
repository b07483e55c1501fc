"""The API reference, generated from the same schema as the CRD."""

import json
from collections.abc import Iterator
from typing import Any

from yolofleet.api.base import QUANTITY_SCHEMA
from yolofleet.api.crd import COLUMNS, HEADER, crd
from yolofleet.api.names import API_VERSION, KIND

Schema = dict[str, Any]


def rendered() -> str:
    """Return the reference page as Markdown."""
    schema = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    lines = [
        f"<!-- {HEADER[2:-1]} -->",
        f"# {KIND}, {API_VERSION}",
        "",
        "Everything below is also in the cluster: `kubectl explain yd.spec.canary --recursive`.",
        "",
        f"`kubectl get yd` shows {', '.join(c[0] for c in COLUMNS if not c[3])};"
        f" `-o wide` adds {', '.join(c[0] for c in COLUMNS if c[3])}.",
        "",
    ]
    for part in ("spec", "status"):
        lines += [f"## {part}", "", "| field | type | default | what it is |", "|---|---|---|---|"]
        lines += _rows(schema[part], "")
        lines += [""]
        if rules := list(_rules(schema[part])):
            lines += ["Refused at admission, with these words:", ""]
            lines += [f"* {message}" for message in rules] + [""]
    return "\n".join(lines).rstrip() + "\n"


def _rows(node: Schema, path: str) -> Iterator[str]:
    for name, field in node.get("properties", {}).items():
        where = f"{path}{name}"
        default = f"`{json.dumps(field['default'])}`" if "default" in field else ""
        if default == "" and name in node.get("required", ()):
            default = "required"
        description = field.get("description", "").replace("|", "\\|")
        yield f"| `{where}` | {_type(field)} | {default} | {description} |"
        yield from _rows(field, f"{where}.")
        for inner, mark in (("items", "[]"), ("additionalProperties", ".*")):
            if isinstance(field.get(inner), dict):
                yield from _rows(field[inner], f"{where}{mark}.")


def _type(field: Schema) -> str:
    if "enum" in field:
        return " \\| ".join(f"`{value}`" for value in field["enum"])
    if field.get("pattern") == QUANTITY_SCHEMA["pattern"]:
        return "quantity"
    kind = str(field.get("type", "any"))
    if kind == "array":
        return f"list of {_type(field['items'])}"
    if isinstance(field.get("additionalProperties"), dict):
        return f"map of {_type(field['additionalProperties'])}"
    low, high = field.get("minimum"), field.get("maximum")
    bounds = f" {low}…{high}" if low is not None and high is not None else ""
    return kind + bounds


def _rules(node: Schema) -> Iterator[str]:
    for rule in node.get("x-kubernetes-validations", ()):
        yield rule["message"]
    for inner in node.get("properties", {}).values():
        yield from _rules(inner)
    for name in ("items", "additionalProperties"):
        if isinstance(node.get(name), dict):
            yield from _rules(node[name])
