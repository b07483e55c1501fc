"""The examples fit the CRD and the types, and say what they claim."""

from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from yolofleet.api.crd import crd
from yolofleet.api.detector import Detector
from yolofleet.plan.defaults import Defaults
from yolofleet.plan.revisions import canary_revision, stable_revision

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FILES = sorted(EXAMPLES.glob("*.yaml"))
DEFAULTS = Defaults("cpu", "torch", "gpu", "IfNotPresent", 15)


def load(name: str):
    return yaml.safe_load((EXAMPLES / name).read_text())


def parse(name: str) -> Detector:
    raw = load(name)
    raw["metadata"] |= {"namespace": "default", "uid": "1", "generation": 1}
    return Detector.parse(raw)


def strict(schema):
    """Refuse unknown fields, which the API server would drop with a warning."""
    closed = dict(schema)
    if "properties" in closed:
        closed["properties"] = {name: strict(sub) for name, sub in closed["properties"].items()}
        if not closed.get("x-kubernetes-preserve-unknown-fields"):
            closed["additionalProperties"] = False
    if isinstance(closed.get("items"), dict):
        closed["items"] = strict(closed["items"])
    return closed


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_an_example_holds_only_fields_of_the_crd(file: Path):
    schema = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    Draft202012Validator(strict(schema)).validate(yaml.safe_load(file.read_text())["spec"])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_an_example_parses(file: Path):
    assert parse(file.name).name == load(file.name)["metadata"]["name"]


def test_the_canary_example_is_the_first_one_with_a_canary():
    spec = load("canary.yaml")["spec"]
    assert spec.pop("canary")["weight"] == 10
    assert spec == load("yolodetector.yaml")["spec"]


def test_the_canary_keeps_the_stable_revision_of_the_first_example():
    before, with_canary = parse("yolodetector.yaml"), parse("canary.yaml")
    stable = stable_revision(with_canary, DEFAULTS)
    canary = canary_revision(with_canary, DEFAULTS)
    assert stable == stable_revision(before, DEFAULTS)
    assert canary is not None
    assert canary.name != stable.name


def test_the_gpu_example_runs_the_gpu_image():
    assert stable_revision(parse("gpu.yaml"), DEFAULTS).image == "gpu"


def test_the_first_example_is_short_enough_to_read_at_a_glance():
    assert len((EXAMPLES / "yolodetector.yaml").read_text().splitlines()) <= 35
