"""What becomes of requests, across the two programs: a new refusal is an error, or is none."""

from yolofleet.analysis.increments import ERRORS
from yoloserve.http.replies import CODES, STATUS_OF

NOT_ITS_OWN = {"fetches_full"}
"""Of the refusals with 5xx, those that say nothing of the revision that answers so."""


def test_what_a_server_answers_with_5xx_counts_against_its_revision() -> None:
    refused = {error.code for error, status in STATUS_OF.items() if status >= 500}
    assert refused | {"internal"} == ERRORS | NOT_ITS_OWN
    assert ERRORS <= CODES
