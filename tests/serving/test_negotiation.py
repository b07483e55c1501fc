"""What a client would rather have, by the standard's rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yoloserve.http.negotiation import encoding, media_type, prefers

JPEG, JSON = "image/jpeg", "application/json"


@pytest.mark.parametrize(
    ("accepted", "picture"),
    [
        ([], False),
        ([""], False),
        (["*/*"], False),
        (["image/jpeg"], True),
        (["IMAGE/JPEG"], True),
        (["image/*"], True),
        (["image/png"], False),
        (["image/jpeg;q=0"], False),
        (["image/jpeg;q=0.0, */*"], False),
        (["image/jpeg ; Q=0.5"], True),
        (["image/jpeg;q=much"], False),
        (["image/jpeg, application/json"], False),
        (["image/jpeg, application/json;q=0.9"], True),
        (["application/json, image/jpeg;q=0.1"], False),
        (["application/*, image/jpeg;q=0.1"], False),
        (["application/json;q=0, image/jpeg;q=0.1"], True),
        (["application/json;q=0, */*;q=0.1"], True),
        (["image/*, image/jpeg;q=0, application/json;q=0.1"], False),
        (["image/jpeg, */*;q=0.1"], True),
        (["image/jpeg", "application/json"], False),
        (["application/json", "image/jpeg;q=0.5"], False),
        (['text/x;a="image/jpeg,image/jpeg"'], False),
        (['image/jpeg;a=", application/json";q=0.5'], True),
        (["text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"], False),
        (["text/html, image/gif, image/jpeg, */*; q=0.2"], False),
        (["image/jpegs, ximage/jpeg"], False),
    ],
)
def test_a_picture_is_drawn_for_who_prefers_one(accepted: list[str], picture: bool) -> None:
    assert prefers(JPEG, JSON, accepted) is picture


RANGES = st.sampled_from(["image/jpeg", "image/*", "*/*", "application/json", "text/html"])
LISTS = st.lists(st.tuples(RANGES, st.integers(0, 1000)), max_size=5, unique_by=lambda x: x[0])


@given(LISTS, st.randoms())
def test_neither_order_nor_case_nor_lines_of_a_list_matter(wishes, random) -> None:
    written = [f"{name};q={weight / 1000}" for name, weight in wishes]
    expected = prefers(JPEG, JSON, [",".join(written)])
    random.shuffle(written)
    assert prefers(JPEG, JSON, [each.upper() for each in written]) is expected


@given(st.lists(st.text('image/jpeg*;,q=01.\\" \t', max_size=60), max_size=3))
def test_no_list_breaks_the_reader(lines) -> None:
    prefers(JPEG, JSON, lines)
    encoding(("gzip",), lines)


def test_a_type_is_read_without_its_parameters() -> None:
    assert media_type("Multipart/Form-Data; Boundary=Q") == "multipart/form-data"
    assert media_type("") == ""
