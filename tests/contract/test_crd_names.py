"""Names that YAML readers other than ours take for something else."""

from collections.abc import Iterator
from typing import Any

import pytest

from yolofleet.api.crd import crd

NO_NAMES = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


def names(schema: Any) -> Iterator[str]:
    """Return the names of all fields in a schema."""
    if isinstance(schema, dict):
        properties = schema.get("properties")
        if isinstance(properties, dict):
            yield from properties
        for value in schema.values():
            yield from names(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from names(value)


@pytest.mark.parametrize("spoken", sorted(NO_NAMES))
def test_no_field_is_called_as_yaml_1_1_calls_true_or_false(spoken):
    """kubectl and Helm read `n:` as `false:`; then the API server knows no field `n`."""
    assert spoken not in {name.lower() for name in names(crd())}
