"""The CRD, generated from the types: schema, CEL rules, defaults, printer columns.

`make generate` writes it to crds/ and the chart; a test fails when either is stale.
"""

import json
from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import BaseModel

from yolofleet.api.base import RULES, Rule
from yolofleet.api.detector import DetectorSpec, Inference, Runtime
from yolofleet.api.names import GROUP, KIND, PLURAL, VERSION, Manifest
from yolofleet.api.pod_template import PodTemplate
from yolofleet.api.status import Status

Schema = dict[str, Any]

NAME_RULE = Rule(
    "self.metadata.name.matches('^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$')",
    "metadata.name: a Service of this name is made, so it must begin with a letter, hold only a-z,"
    " 0-9 and -, and be at most 63 characters long",
)

SCALING_RULE = Rule(
    # Of the root: only there the status is known. Where nobody gives a number, 1 is filled in.
    "!has(oldSelf.spec.autoscaling) || oldSelf.spec.autoscaling.provider == 'none'"
    " || (has(self.spec.autoscaling) && self.spec.autoscaling.provider != 'none')"
    " || self.spec.replicas > 1"
    " || !has(self.status) || !has(self.status.stable) || self.status.stable.desired <= 1",
    "spec.replicas: say with how many replicas to go on when you remove spec.autoscaling, or set"
    " its provider to none, at least 2, as more than one run now; it can become less afterwards",
    ".spec.replicas",
)

RAY_NAME_RULE = Rule(
    # A RayService is called as its revision is: KubeRay takes 47 characters, 9 are the revision's.
    "size(self.metadata.name) <= 38 || !(self.spec.runtime.engine == 'ray' ||"
    " (has(self.spec.canary) && has(self.spec.canary.runtime) &&"
    " has(self.spec.canary.runtime.engine) && self.spec.canary.runtime.engine == 'ray'))",
    "metadata.name: with engine ray it may have at most 38 characters: KubeRay takes names of 47,"
    " and a revision's adds 9; give the detector a shorter name, or use engine deployment",
)

WIDE = {"priority": 1}
"""Only `-o wide` shows it. No 0 is stored, which who compares (Argo CD) would miss."""

COLUMNS: tuple[tuple[str, str, str, dict[str, int]], ...] = (
    ("Ready", "string", ".status.ready", {}),
    ("Desired", "integer", ".status.stable.desired", {}),
    ("Released", "string", '.status.conditions[?(@.type=="Released")].status', {}),
    ("Stable", "string", ".status.stable.revision", {}),
    ("Canary", "string", ".status.canary.revision", {}),
    ("Weight", "integer", ".status.canary.weight", {}),
    ("Analysis", "string", ".status.analysis.said", {}),
    ("URL", "string", ".status.url", {}),
    ("Age", "date", ".metadata.creationTimestamp", {}),
    ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', WIDE),
    ("Progress", "string", '.status.conditions[?(@.type=="Progressing")].reason', WIDE),
    ("Traffic", "string", '.status.conditions[?(@.type=="TrafficRouted")].reason', WIDE),
    ("Model", "string", ".status.stable.model", WIDE),
)

UNSEEN = {"observedGeneration": -1}
"""The status before the operator wrote one: kstatus takes an object without any for current."""


def schema(model: type[BaseModel]) -> Schema:
    """Return the structural schema of `model`: references resolved, only what Kubernetes knows."""
    whole = model.model_json_schema(by_alias=True, mode="validation")
    return _structural(whole, whole.get("$defs", {}))


def _structural(node: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """Inline references and drop what a structural schema may not hold (titles, null, const)."""
    if "$ref" in node:
        name = node["$ref"].rsplit("/", 1)[-1]
        resolved = _structural(definitions[name], definitions)
        siblings = {k: v for k, v in node.items() if k in ("description", "default")}
        if resolved.get("type") == "object" and "default" in siblings:
            siblings["default"] = _object_default(node)
        return resolved | siblings
    if "allOf" in node and len(node["allOf"]) == 1:
        siblings = {k: v for k, v in node.items() if k != "allOf"}
        return _structural(node["allOf"][0] | siblings, definitions)
    if "anyOf" in node and "x-kubernetes-int-or-string" not in node:
        [kept] = [option for option in node["anyOf"] if option.get("type") != "null"]
        siblings = {k: v for k, v in node.items() if k not in ("anyOf", "default")}
        return _structural(kept | siblings, definitions)
    out = {k: v for k, v in node.items() if k not in ("title", "$defs", "additionalProperties")}
    if "properties" in node:
        out["properties"] = {
            name: _structural(sub, definitions) for name, sub in node["properties"].items()
        }
    if "items" in node:
        out["items"] = _structural(node["items"], definitions)
    if isinstance(node.get("additionalProperties"), dict):
        out["additionalProperties"] = _structural(node["additionalProperties"], definitions)
    if RULES in node:
        out[RULES] = [rule.as_schema() for rule in node[RULES]]
    if out.get("default") == {} or (out.get("type") == "object" and "default" in out):
        out["default"] = _object_default(node)
    return out


def _object_default(node: Schema) -> Schema:
    """Return the default without what is absent: the API server checks it by the schema as is."""
    default = node.get("default")
    if not isinstance(default, dict):
        return {}
    return {name: value for name, value in default.items() if value is not None}


def without_defaults(node: Schema) -> Schema:
    """Return `node` with nothing required and nothing filled in: its fields override others."""
    out = {k: v for k, v in node.items() if k not in ("default", "required")}
    out["properties"] = {
        name: {k: v for k, v in sub.items() if k != "default"}
        for name, sub in node["properties"].items()
    }
    return out


def _bare_items(node: Schema, *, within: bool = False) -> Schema:
    """Return `node` with nothing filled in within its lists, which GitOps tools compare whole."""
    out = {k: v for k, v in node.items() if k != "default" or not within}
    if "properties" in node:
        out["properties"] = {
            name: _bare_items(sub, within=within) for name, sub in node["properties"].items()
        }
    if "items" in node:
        out["items"] = _bare_items(node["items"], within=True)
    return out


def _spec() -> dict[str, Any]:
    """Return the schema of the spec; a canary has no defaults of its own, but the detector's."""
    spec = _bare_items(schema(DetectorSpec))
    canary = spec["properties"]["canary"]["properties"]
    models = (("runtime", Runtime), ("inference", Inference), ("podTemplate", PodTemplate))
    for part, model in models:
        description = canary[part]["description"]
        canary[part] = without_defaults(schema(model)) | {"description": description}
    return spec


def _status() -> dict[str, Any]:
    """Return the schema of the status, with its lists as maps for those who apply parts of it."""
    status = schema(Status)
    for part, key in (("conditions", "type"), ("revisions", "name")):
        status["properties"][part] |= {
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": [key],
        }
    return status


def crd() -> Manifest:
    """Return the CustomResourceDefinition of `YoloDetector`."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["yd"],
                "categories": ["yolofleet"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": [
                        {"name": name, "type": kind, "jsonPath": path, **priority}
                        for name, kind, path, priority in COLUMNS
                    ],
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "description": "A YOLO detector: its model, how it runs, and how a"
                            " better one takes over.",
                            "required": ["spec"],
                            "properties": {
                                "apiVersion": {"type": "string"},
                                "kind": {"type": "string"},
                                "metadata": {"type": "object"},
                                "spec": _spec() | {"description": "What the detector should be."},
                                "status": _status()
                                | {"description": "What it is.", "default": UNSEEN},
                            },
                            RULES: [
                                NAME_RULE.as_schema(),
                                SCALING_RULE.as_schema(),
                                RAY_NAME_RULE.as_schema(),
                            ],
                        }
                    },
                }
            ],
        },
    }


def filled_in(node: Schema) -> Manifest:
    """Return what the API server fills into an object of this schema that says nothing."""
    found: Manifest = {}
    for name, sub in node.get("properties", {}).items():
        if "properties" in sub and ("default" in sub or name in node.get("required", ())):
            found[name] = {**filled_in(sub), **sub.get("default", {})}
        elif "default" in sub:
            found[name] = sub["default"]
    return found


class _Plain(yaml.SafeDumper):
    """Writes equal values out each time: anchors are legal YAML and hard to read."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 (the base class names it)
        """Never refer back."""
        return True


HEADER = (
    "# Generated from operator/yolofleet/api by `make generate`: edit the types, not this file.\n"
)


def rendered() -> str:
    """Return the CRD as the YAML that is committed."""
    return HEADER + yaml.dump(crd(), Dumper=_Plain, sort_keys=False, width=100, allow_unicode=True)


def defaults() -> str:
    """Return what a spec has that nobody gave it, as the JSON that the plugin reads."""
    return json.dumps(filled_in(_spec()), indent=2) + "\n"


def chart_copy() -> str:
    """Return the CRD as a chart template: installed and upgraded with it, kept when it goes."""
    head, rest = rendered().split("metadata:\n", 1)
    annotations = (
        "  annotations:\n    {{- if .Values.crds.keep }}\n"
        "    helm.sh/resource-policy: keep\n    {{- end }}\n"
        "    yolofleet.io/chart: {{ .Chart.Name }}-{{ .Chart.Version }}\n"
    )
    return (
        "{{- if .Values.crds.enabled }}\n"
        + head
        + "metadata:\n"
        + annotations
        + rest
        + "{{- end }}\n"
    )
