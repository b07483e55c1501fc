import pytest

from cluster.errors import NotPossibleHere
from cluster.mode import Facts, Mode, decide


@pytest.mark.parametrize(
    ("facts", "mode"),
    [
        (Facts(wish="", pulls=True, go=False, root=False), Mode.PULL),
        (Facts(wish="", pulls=True, go=True, root=True), Mode.PULL),
        (Facts(wish="", pulls=False, go=True, root=True), Mode.BUILD),
        (Facts(wish="build", pulls=True, go=True, root=True), Mode.BUILD),
        (Facts(wish="pull", pulls=False, go=True, root=True), Mode.PULL),
    ],
)
def test_images_are_pulled_where_they_can_be_unless_a_person_asks_otherwise(
    facts: Facts, mode: Mode
) -> None:
    assert decide(facts)[0] is mode


@pytest.mark.parametrize(
    ("go", "root", "named"),
    [(False, True, "Go"), (True, False, "root"), (False, False, "Go 1.25 or newer and root")],
)
def test_what_building_lacks_is_named(go: bool, root: bool, named: str) -> None:
    with pytest.raises(NotPossibleHere, match=named):
        decide(Facts(wish="", pulls=False, go=go, root=root))


def test_an_unknown_wish_is_refused_with_the_known_ones() -> None:
    with pytest.raises(NotPossibleHere, match="`pull`, `build`"):
        decide(Facts(wish="buidl", pulls=True, go=True, root=True))
