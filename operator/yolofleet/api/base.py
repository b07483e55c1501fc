"""What every type of the API is made of: rules, amounts, durations, times."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetJsonSchemaHandler,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from yolofleet.runtime import quantity

REMEMBERED: Final = 256
"""So many detectors' specs, and what follows from them, are remembered as they were worked out.

An edit, and each event of a release, takes passes over one detector; all detectors of a large fleet
would be remembered at the price of memory.
"""


RULES: Final = "x-kubernetes-validations"


@dataclass(frozen=True, slots=True)
class Rule:
    """A CEL rule: what must hold, and what the user is told when it does not.

    message: "field: what is wrong and the fix". value: a CEL string that is told with the field.
    """

    rule: str
    message: str
    field: str = ""
    value: str = ""

    def as_schema(self) -> dict[str, str]:
        """Return the entry in a schema."""
        entry = {"rule": self.rule, "message": self.message}
        if self.value:
            field, fix = self.message.replace("'", "\\'").split(": ", 1)
            entry["messageExpression"] = f"'{field} (' + {self.value} + '): {fix}'"
        return entry | ({"fieldPath": self.field} if self.field else {})


class ApiModel(BaseModel):
    """Camel case outside, snake case inside; unknown fields are for the API server to refuse."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore"
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Return the schema with the rules, as they are: pydantic would sort what is in them."""
        schema = handler(core_schema)
        if cls.rules:
            handler.resolve_ref_schema(schema)[RULES] = list(cls.rules)
        return schema

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Return the model itself: nobody changes one, and each parse would copy its defaults."""
        return self


MOST_PROBLEMS: Final = 100
"""Nobody reads more at a time; a small object can have as many as it has bytes."""


def first_of(problems: Iterable[str]) -> tuple[str, ...]:
    """Return the first of `problems`, and do not look for more than are told."""
    told = tuple(islice(problems, MOST_PROBLEMS + 1))
    if len(told) <= MOST_PROBLEMS:
        return told
    return (*told[:MOST_PROBLEMS], f"spec: there are more than these {MOST_PROBLEMS}")


class InvalidSpec(Exception):
    """A spec that admission let through and nobody can serve; says each wrong field and the fix."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def _in_canonical_form(amounts: object) -> object:
    if not isinstance(amounts, Mapping):
        return amounts
    return {name: quantity.canonical(amount) for name, amount in amounts.items()}


QUANTITY_SCHEMA: Mapping[str, Any] = {
    "x-kubernetes-preserve-unknown-fields": True,
    "pattern": quantity.PATTERN,
    "minimum": 0,
}
"""A string or any number, as in a pod. x-kubernetes-int-or-string would refuse a bare 0.5, and in
words that do not say that quotes help. CEL reaches such a value by dyn() of what is around it."""

Quantities = Annotated[
    dict[str, str],
    BeforeValidator(_in_canonical_form),
    WithJsonSchema(
        {"type": "object", "maxProperties": 16, "additionalProperties": {**QUANTITY_SCHEMA}}
    ),
]
"""Amounts by resource name, as in a pod."""

_DURATION = re.compile(r"(\d+)(ms|s|m|h)")
_LONGEST_S = 87_600 * 3600
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(duration: str) -> float:
    """Return the seconds in a duration such as 500ms, 2s or 1m."""
    match = _DURATION.fullmatch(duration)
    if match is None:
        raise ValueError(f"{duration!r} is not a duration; write it as 500ms, 2s or 1m")
    total = int(match[1]) * _SECONDS[match[2]]
    if total > _LONGEST_S:
        raise ValueError(f"{duration} is too long; give at most 87600h, ten years")
    return total


def countable(name: str) -> str:
    """Return the CEL that the duration `name` has no more digits than CEL can count.

    Its durations end at 292 years, by an error.
    """
    return f"self.{name}.matches('^([0-9]{{1,12}}ms|[0-9]{{1,9}}s|[0-9]{{1,7}}m|[0-9]{{1,5}}h)$')"


def at_most_ten_years(name: str, field: str) -> Rule:
    """Return the rule that the duration `name`, which is `field` of a spec, is not too long."""
    return Rule(
        f"!has(self.{name}) || !self.{name}.matches('^[0-9]+(ms|s|m|h)$') ||"
        f" ({countable(name)} && duration(self.{name}) <= duration('{_LONGEST_S // 3600}h'))",
        f"{field}: must be at most {_LONGEST_S // 3600}h, ten years",
        f".{name}",
        f"self.{name}",
    )


def _a_duration(text: str) -> str:
    seconds(text)
    return text


Duration = Annotated[
    str,
    AfterValidator(_a_duration),
    WithJsonSchema({"type": "string", "maxLength": 16, "pattern": r"^[1-9][0-9]*(ms|s|m|h)$"}),
]


def _whole_second(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _next_whole_second(time: datetime) -> str:
    return _whole_second(time + timedelta(microseconds=999_999))


_TIME = WithJsonSchema({"type": "string", "format": "date-time"})
Time = Annotated[datetime, PlainSerializer(_whole_second), _TIME]
Since = Annotated[datetime, PlainSerializer(_next_whole_second), _TIME]
"""When something began that must last for a time: rounded up, so that it never ends too early."""

FreeForm = Annotated[
    dict[str, Any],
    WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
]
