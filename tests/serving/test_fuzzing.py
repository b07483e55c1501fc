"""A few thousand broken inputs for each reader; `python -m fuzz` throws millions."""

import pytest

from fuzz.__main__ import fuzz
from fuzz.targets import all_targets, attempt

TARGETS = {target.name: target for target in all_targets()}


@pytest.mark.parametrize("name", TARGETS)
def test_broken_input_is_answered_or_refused(name: str) -> None:
    inputs = 1500 // TARGETS[name].cost
    taken, _ = fuzz(TARGETS[name], inputs, seed=7)
    assert taken < inputs  # or nothing was broken


@pytest.mark.parametrize("name", ["images", "megapixels", "inference", "forms", "compressed"])
def test_what_is_not_broken_is_taken(name: str) -> None:
    target = TARGETS[name]
    assert any(attempt(target, seed) for seed in target.seeds)
