"""The examples, those in the guides too, fit the CRD and the types, and say what they claim."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from yolofleet.api.crd import crd
from yolofleet.api.detector import Detector
from yolofleet.plan.defaults import Defaults
from yolofleet.plan.revisions import canary_revision, stable_revision

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
FILES = sorted(EXAMPLES.glob("*.yaml"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^( *)```yaml\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
DEFAULTS = Defaults("cpu", "torch", "gpu", "IfNotPresent", 15)


def load(name: str):
    return yaml.safe_load((EXAMPLES / name).read_text())


def parse(name: str) -> Detector:
    raw = load(name)
    raw["metadata"] |= {"namespace": "default", "uid": "1", "generation": 1}
    return Detector.parse(raw)


def shown() -> Iterator[Any]:
    """Return the specs in pages: of whole detectors, and parts that are to be filled up."""
    for page in PAGES:
        text = page.read_text()
        for found in BLOCK.finditer(text):
            for manifest in yaml.safe_load_all(found[2]):
                if manifest.get("kind", "YoloDetector") == "YoloDetector" and "spec" in manifest:
                    line = text[: found.start()].count("\n") + 1
                    yield pytest.param(manifest["spec"], id=f"{page.relative_to(ROOT)}:{line}")


def spec_schema() -> dict[str, Any]:
    schema: dict[str, Any] = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return strict(schema["properties"]["spec"])


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
    Draft202012Validator(spec_schema()).validate(yaml.safe_load(file.read_text())["spec"])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_an_example_parses(file: Path):
    assert parse(file.name).name == load(file.name)["metadata"]["name"]


@pytest.mark.parametrize("spec", [*shown()])
def test_what_a_page_shows_of_a_detector_could_be_applied(spec: dict[str, Any]):
    whole = {"model": {"uri": "demo://shapes"}} | spec
    Draft202012Validator(spec_schema()).validate(whole)
    Detector.parse(
        {
            "metadata": {"name": "gate", "namespace": "n", "uid": "1", "generation": 1},
            "spec": whole,
        }
    )


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
