from dataclasses import replace

import pytest

from load_step.__main__ import Asked, Result, turns


@pytest.mark.parametrize(
    ("replicas", "count"),
    [
        ([], 0),
        ([1, 1, 1], 0),
        ([1, 2, 2, 5, 6], 0),
        ([6, 5, 5, 4], 0),
        ([1, 5, 5, 4], 1),
        ([5, 4, 4, 5, 4], 2),
    ],
)
def test_a_turn_is_a_number_of_replicas_that_went_back(replicas: list[int], count: int) -> None:
    assert turns(replicas) == count


GOOD = Result(
    provider="keda",
    served_s=20,
    refused_after=0.001,
    most_replicas=5,
    turns=1,
    held=5,
    fewest_lost=5,
    fewest_back=4,
    asked=Asked("keda", before=60, after=180, noise=600, lost=660, back=480),
)


@pytest.mark.parametrize(
    ("change", "aim"),
    [
        ({}, None),
        ({"served_s": 70}, "refused for 70 s"),
        ({"turns": 2}, "turned 2 times"),
        ({"fewest_lost": 4}, "from 5 to 4"),
        ({"fewest_back": 5}, "nothing is proved"),
    ],
)
def test_what_is_missed_is_said(change: dict[str, int], aim: str | None) -> None:
    missed = list(replace(GOOD, **change).missed())  # type: ignore[arg-type]
    assert [aim in each for each in missed] == ([True] if aim else [])
