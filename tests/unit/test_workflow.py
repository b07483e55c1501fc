"""The workflow of a hosted forge calls what people call."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / ".github" / "workflows" / "yolofleet.yaml"
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def jobs():
    return yaml.safe_load(WORKFLOW.read_text())["jobs"]


def commands(job):
    return [step["run"] for step in job["steps"] if "run" in step]


def test_every_make_that_it_calls_is_there() -> None:
    called = [
        target
        for job in jobs().values()
        for command in commands(job)
        for target in re.findall(r"\bmake ([a-z-]+)", command)
    ]
    assert {"test", "test-all", "release"} <= set(called) <= TARGETS


def test_what_a_release_is_asked_with_is_what_the_makefile_reads() -> None:
    [command] = [c for c in commands(jobs()["release"]) if c.startswith("make release")]
    asked = set(re.findall(r"\b([A-Z]+)=", command))
    assert asked == {"VERSION", "REGISTRY"}
    recipe = (ROOT / "Makefile").read_text().split("\nrelease: ")[1].split("\n\n")[0]
    assert asked <= set(re.findall(r"\$\((\w+)\)", recipe))


def test_what_is_compiled_is_kept_by_files_that_decide_it() -> None:
    kept = re.findall(r"hashFiles\((.*)\)", WORKFLOW.read_text())
    assert kept
    for pattern in re.findall(r"'([^']+)'", " ".join(kept)):
        assert list(ROOT.glob(pattern)), pattern


def test_nothing_is_released_untested_and_only_the_release_may_write() -> None:
    release = jobs()["release"]
    assert release["needs"] == "test"
    assert "refs/tags/v" in release["if"]
    assert release["permissions"]["packages"] == "write"
    assert yaml.safe_load(WORKFLOW.read_text())["permissions"] == {"contents": "read"}
    assert [name for name, job in jobs().items() if "permissions" in job] == ["release"]
