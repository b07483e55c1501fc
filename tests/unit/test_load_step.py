import pytest

from load_step.__main__ import turns


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
