"""What `/openapi.json` promises, asked by a stranger who has read only that (schemathesis)."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)


def no_failure(_context: Any, response: Any, _case: Any) -> None:
    """Overload and missed deadlines are told by 503 and 504; nothing else may go wrong here."""
    assert response.status_code < 500 or response.status_code in (503, 504), response.text


CHECKS = [
    no_failure,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def api(run_server, make_model):
    server = run_server(model=make_model(), name="gate", deadline_ms=20_000)
    return schemathesis.openapi.from_url(server.logged("ready")["url"] + "openapi.json")


@pytest.mark.parametrize("examples", [4, pytest.param(40, marks=pytest.mark.nightly)])
def test_each_operation_keeps_its_promises(api, examples: int) -> None:
    operations = [found.ok() for found in api.get_all_operations()]
    assert len(operations) >= 20
    for operation in operations:

        @given(case=operation.as_strategy())
        @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
        def keeps_its_promises(case: schemathesis.Case) -> None:
            case.call_and_validate(checks=CHECKS, timeout=60)

        keeps_its_promises()
