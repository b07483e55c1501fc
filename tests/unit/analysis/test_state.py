"""What judging remembers is small enough to be in a status, and is read back as it was."""

import json
import random

import numpy as np
import pytest

from judging import scenes
from played_pods import CANARY, STABLE, START, Played, Server
from yolofleet.analysis.increments import Look, Pairs
from yolofleet.analysis.judge import Standing, judge
from yolofleet.analysis.statistics import Tally
from yolofleet.analysis.sums import read, written
from yolofleet.api.analysis import Analysis, AnalysisStatus, Failed, Stage, Sum, Verdict

MOST_BYTES = 8 * 1024

DARK = Standing(CANARY, STABLE, Stage.DARK)


def test_the_state_of_eighty_classes_and_wide_times_fits():
    dice = random.Random(1)
    names = [f"a-class-with-a-name-{i:03d}" for i in range(79)]
    played = Played(stable=[Server("s1", STABLE)])
    played.arguments = {"stage": Stage.LIVE, "weight": 50}
    stable, canary = played.stable[0], played.canary[0]
    for _ in range(30):
        for name in names:
            stable.pair(name, dice.randint(900, 1000), 850, size=dice.randint(0, 2), added=300)
        stable.confused = {a: {b: 1500 for b in names[:3] if b != a} for a in names[:8]}
        stable.frame(2000, blind=90, failed=3)
        for arm in (*stable.compute.values(), stable.times, canary.times):
            for bucket in range(20, 80):
                arm[bucket] += dice.randint(0, 300)
        for server in (stable, canary):
            server.answers(5000, **{name: dice.randint(0, 30_000) for name in names})
        played.look()
    failed = Failed(
        revision=CANARY, check="keptByClass", at=START, message="m" * 200, margins_hash="12345678"
    )
    status = played.status.model_copy(update={"failed": [failed] * 5})
    told = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert len(json.dumps(told, separators=(",", ":"))) <= MOST_BYTES
    assert AnalysisStatus.model_validate(told) == status
    assert AnalysisStatus().model_copy(update=written(read(status))).sums == status.sums


def test_what_lying_pods_count_fits_into_numbers_that_the_api_server_takes():
    """It keeps 64 bits: the whole status would be refused, and with it what was found."""
    played = Played()
    played.arguments = {"stage": Stage.LIVE, "weight": 50}
    stable, canary = played.stable[0], played.canary[0]
    for number in range(40):
        huge = 2**53 - number % 2  # and back
        stable.expected = stable.kept = {f"class {i}": [huge] * 3 for i in range(79)}
        stable.confused = {"a": {"b": huge}}
        stable.seen = stable.blind = huge
        stable.frames = dict.fromkeys(("compared", "failed", "late"), huge)
        stable.sure = {"a": huge}
        canary.blind_in_a_row = huge
        for server in (stable, canary):
            server.requests = {"ok": huge, "internal": huge}
            server.times = [huge] * 99
            server.images, server.objects = huge, {f"class {i}": huge for i in range(79)}
        stable.compute = {"stable": [huge] * 99, "canary": [huge] * 99}
        played.look()
    told = json.loads(json.dumps(played.status.model_dump(mode="json")), parse_int=int)
    assert all(abs(number) < 2**62 / 1000 for number in _integers(told))


def _integers(told):
    for each in told.values() if isinstance(told, dict) else told:
        if isinstance(each, dict | list):
            yield from _integers(each)
        elif isinstance(each, int):
            yield each


@pytest.mark.parametrize("counts", [[5, 3, 1], [-1, 9, 3], [4, 9, 0], [1], [], [0, 0, 7]])
def test_evidence_that_somebody_else_wrote_is_none(counts):
    known = AnalysisStatus(sums=[Sum(name="kept", counts=counts)])
    assert read(known).tally("kept") == Tally()
    judge(Analysis(), known, Look(), DARK, now=START)


def released(keeps: float, *, drift: float = 0.0, releases: int = 12) -> list[str]:
    """Return the verdict of `kept` on releases of five and a half minutes at 20 frames a second."""
    rng = np.random.default_rng(7)
    k, n = scenes.looks(
        rng, scenes.Traffic(4, 5), releases=releases, seconds=330, keeps=keeps, drift=drift
    )
    verdicts = []
    for kept, expected in zip(k.tolist(), n.tolist(), strict=True):
        status = None
        for found, all_ in zip(kept, expected, strict=True):
            pairs = Pairs(expected={"circle": (0, all_, 0)}, kept={"circle": (0, found, 0)})
            status = judge(Analysis(), status, Look(pairs=pairs), DARK, now=START)
        verdicts.append({check.name: check.verdict for check in status.checks}["kept"])
    return verdicts


def test_good_releases_pass_and_bad_ones_fail_though_frames_resemble_each_other():
    assert set(released(0.97)) == {Verdict.PASS}
    assert set(released(0.89)) == {Verdict.PASS}  # as honest retrainings do
    assert Verdict.FAIL not in released(0.89, drift=0.4)
    for keeps in (0.0005, 0.5, 0.667):
        assert set(released(keeps)) == {Verdict.FAIL}
