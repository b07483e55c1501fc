"""What becomes of requests, across the two programs: a new refusal is an error, or is none."""

import re
from pathlib import Path

from yolofleet.analysis.increments import ERRORS
from yolofleet.api.autoscaling import Autoscaling
from yolofleet.plan.defaults import GpuSeries
from yolofleet.plan.keda import questions
from yoloserve.http.replies import CODES, STATUS_OF
from yoloserve.telemetry.metrics import FROM_THE_START

FILES = Path(__file__).parents[2] / "charts" / "yolofleet" / "files"
ASKED_FOR = re.compile(r'outcome=~?\\?"([a-z_|]+)\\?"')  # quotes are escaped in JSON

NOT_ITS_OWN = {"fetches_full"}
"""Of the refusals with 5xx, those that say nothing of the revision that answers so."""


def test_what_a_server_answers_with_5xx_counts_against_its_revision() -> None:
    refused = {error.code for error, status in STATUS_OF.items() if status >= 500}
    assert refused | {"internal"} == ERRORS | NOT_ITS_OWN
    assert ERRORS <= CODES


def test_every_outcome_that_is_watched_is_told_before_there_is_one() -> None:
    """A series that is born with its first number has no rate, and no alert sees it."""
    told = {each.name: each.read_text() for each in (FILES / "rules.yaml", *FILES.glob("*/*.json"))}
    load = Autoscaling(max_replicas=9, load=70)
    (asked,) = questions(load, "shop", "gate", "gate-0a1b2c3d", GpuSeries())
    told["KEDA"] = asked.query
    for where in ("rules.yaml", "detector.json", "fleet.json", "KEDA"):
        outcomes = set("|".join(ASKED_FOR.findall(told[where])).split("|"))
        assert "internal" in outcomes, where
        assert outcomes <= set(FROM_THE_START), where
    assert set(FROM_THE_START) >= ERRORS
    assert set(FROM_THE_START) <= CODES | {"ok"}
