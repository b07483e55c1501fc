"""Whether definitions are established, told by what kubectl prints of them."""

import json
from typing import Any

import pytest

from cluster import definitions
from cluster.definitions import await_established, is_established

ESTABLISHED = {"type": "Established", "status": "True"}


def a_definition(*conditions: dict[str, str], **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "gates"}, "status": {"conditions": [*conditions]} | status}


@pytest.mark.parametrize(
    ("definition", "established"),
    [
        ({}, False),
        ({"status": None}, False),
        (a_definition(conditions=None), False),
        (a_definition(), False),
        (a_definition({"type": "Established", "status": "False"}), False),
        (a_definition({"type": "NamesAccepted", "status": "True"}), False),
        (a_definition({"type": "NamesAccepted", "status": "True"}, ESTABLISHED), True),
    ],
)
def test_it_is_established_once_its_condition_says_so(definition, established) -> None:
    assert is_established(definition) is established


def test_all_of_them_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(definitions, "PAUSE_S", 0)
    new, made = a_definition(conditions=None), a_definition(ESTABLISHED)
    told = iter([{"items": []}, {"items": [made, new]}, {"items": [made, made]}])
    await_established(lambda: json.dumps(next(told)))
    assert not list(told)


def test_who_is_never_established_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(definitions, "WITHIN_S", -1)
    with pytest.raises(TimeoutError, match="gates"):
        await_established(lambda: json.dumps(a_definition()))
