"""A few thousand broken inputs for each reader; `python -m fuzz` throws millions."""

from pathlib import Path

import pytest

from fuzz import __main__ as program
from fuzz.__main__ import fuzz, kept
from fuzz.targets import Target, all_targets, attempt

TARGETS = {target.name: target for target in all_targets()}


@pytest.mark.parametrize("name", TARGETS)
def test_broken_input_is_answered_or_refused(name: str) -> None:
    inputs = 1500 // TARGETS[name].cost
    taken, _ = fuzz(TARGETS[name], inputs, seed=7)
    assert taken < inputs  # or nothing was broken


@pytest.mark.parametrize(
    "name",
    ["images", "megapixels", "inference", "forms", "heads", "compressed", "fronts"],
)
def test_what_is_not_broken_is_taken(name: str) -> None:
    target = TARGETS[name]
    assert any(attempt(target, seed) for seed in target.seeds)


def test_an_input_that_goes_wrong_is_left_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "KEPT", tmp_path)

    def run(data: bytes) -> None:
        if len(data) > 3:
            raise KeyError(len(data))

    target = Target("fragile", run, [b"abc"])
    with pytest.raises(AssertionError, match="KeyError"), kept("fragile") as keep:
        fuzz(target, 1000, 7, keep)
    with pytest.raises(KeyError):
        target.run((tmp_path / "fragile").read_bytes())
    with kept("fragile") as keep:
        keep(b"abc")
    assert not (tmp_path / "fragile").exists()
