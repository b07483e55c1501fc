from pathlib import Path

import pytest

from bench.serving import ceiling
from bench.serving.assets import PICTURE_BYTES, Assets, picture
from bench.serving.ceiling import Engine, Way, stub
from bench.serving.load import GONE
from bench.serving.loadgen import SHARES, highest
from bench.serving.measure import Load
from bench.serving.report import CAREFUL, EXACT, OURS, TUTORIAL, Verdict, table, verdicts


def load(*samples):
    return Load(10.0, samples, client_cpu_s=0, server_cpu_s=0, busiest_cpu_s=0)


def test_only_good_answers_in_time_and_inside_the_phase_are_counted():
    told = load(
        (0.0, 0.1, 200),  # while it settled
        (5.0, 0.1, 200),
        (5.0, 0.3, 200),  # late
        (5.0, 0.1, 503),
        (9.9, 0.2, 200),  # when nobody asks any more
    )
    assert told.rate(within_s=0.2) == pytest.approx(1 / 8.5)
    assert told.rate() == pytest.approx(2 / 8.5)


def test_a_refusal_is_not_late_and_no_answer_at_all_is():
    told = load((1, 0.1, 200), (1, 0.3, 200), (1, 0.3, 503), (1, 2.0, GONE))
    assert told.late(0.2) == 0.5
    assert told.refused() == 0.25
    assert told.quantile_ms(0.99) == 2000


def test_nothing_sent_is_nothing_late():
    assert load().late(0.2) == load().refused() == 0


@pytest.mark.parametrize(("limit", "found"), [(0.9, 0.9), (1.0, 1.0), (0.75, 0.74), (0.1, 0.0)])
def test_the_highest_share_is_found_from_the_middle(limit, found):
    assert highest(SHARES, 0.78, lambda share: share <= limit) == found


def test_a_target_that_was_not_measured_is_not_met():
    assert Verdict("x", None, 1).met is None
    assert Verdict("x", 2, 1, applies=False).met is None
    assert Verdict("x", 2, 1).met
    assert Verdict("x", 2, 1, at_least=False).met is False


def test_every_column_is_compared_with_the_best_peer():
    results = {
        OURS: {"capacity": 40.0, "ready_s": 2.0, "closed_4": 40.0},
        EXACT: {"capacity": 24.0},
        TUTORIAL: {"capacity": 10.0, "ready_s": 8.0, "closed_4": 10.0},
        CAREFUL: {"capacity": 20.0, "ready_s": 1.0, "closed_4": 20.0},
    }
    judged = {verdict.target: verdict for verdict in verdicts(results, {})}
    assert judged["ahead of each peer: ready s"].met is False
    assert judged["ahead of each peer: images/s, 4 callers"].value == 2
    same_padding = judged["fp32 throughput ÷ careful ONNX Runtime, same padding"]
    assert same_padding.value == pytest.approx(1.2)
    assert same_padding.met
    assert "| ahead of each peer: ready s | ≥ 1 | 0.50 | **missed** |" in table(
        results, {}, list(judged.values())
    )


def test_pictures_are_as_large_as_they_should_be_and_always_the_same():
    encoded = picture(1)
    assert 0.85 * PICTURE_BYTES < len(encoded) <= PICTURE_BYTES
    assert picture(1) == encoded


def test_a_ceiling_is_that_of_a_checkouts_server_around_this_ones_stub():
    """An old stub would not know what it is to be like."""
    server = stub(Engine(5, 16), Way(Path("/old"), fronts=3), Assets(Path("/p"), Path("/f"), ()))
    settings = dict(each.split("=", 1) for each in server.arguments if "=" in each)
    server_of, stub_of = settings["PYTHONPATH"].split(":")
    assert server_of == "/old/serving_image"
    assert Path(stub_of, "stub_engine", "engine.py").is_file()
    assert (settings["YOLOSTUB_SERVICE_MS"], settings["YOLOSTUB_MAX_BATCH"]) == ("5", "16")
    assert server.arguments[-2:] == ("--front-processes", "3")
    assert Engine(5, 16).callers >= 2 * 16 * 2  # each lane full, and as many who wait


def test_ceilings_are_told_for_each_engine_and_checkout_and_held_against_the_aim():
    medians = {
        ("1 ms", "new"): {"per_s": 200.0, "cpu_ms": 2.9},
        ("1 ms", "/old"): {"per_s": 150.0, "cpu_ms": 4.6},
        ("5 ms", "new"): {"per_s": 180.0, "cpu_ms": 3.5},
    }
    assert ceiling.table(medians).splitlines() == [
        "| engine | checkout | per_s | cpu_ms |",
        "|---|---|---:|---:|",
        "| 1 ms | new | 200 | 2.9 |",
        "| 1 ms | /old | 150 | 4.6 |",
        "| 5 ms | new | 180 | 3.5 |",
    ]
    assert ceiling.told(medians) == "new 2.90 ms (met: 3), /old 4.60 ms (**missed**: 3)"
