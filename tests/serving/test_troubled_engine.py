"""The server with a network in trouble answers as the network does, until the trouble begins."""

import numpy as np
import pytest

from cluster import images
from seeing.cases import CASES, trouble
from troubled_engine.engine import Trouble, Troubled, TroubleFailure
from yoloserve.engine import starting
from yoloserve.engine.starting import Engine
from yoloserve.settings import Settings

PICTURE = [np.full((320, 320, 3), 114, np.uint8)]


@pytest.fixture(scope="module")
def network() -> Engine:
    return starting.start(Settings())


@pytest.fixture
def troubled(network: Engine, clock):
    """Make it with a trouble, on a clock that only its own sleep moves."""

    def sleep(seconds: float) -> None:
        clock.now += seconds

    def make(**told: object) -> Engine:
        environment = {f"TROUBLED_{name.upper()}": str(value) for name, value in told.items()}
        backend = Troubled(network, Trouble.read(environment), lambda: clock.now, sleep)
        return Engine(backend, network.info, network.head)

    return make


def test_without_trouble_it_is_the_network(troubled, network: Engine) -> None:
    [ours], [its] = troubled().infer(0, PICTURE), network.infer(0, PICTURE)
    assert np.array_equal(ours, its)


def test_a_blind_one_sees_from_its_moment_on_nothing(troubled, clock) -> None:
    engine = troubled(blind=True, after_s=60)
    assert engine.infer(0, PICTURE)[0].any()
    clock.now += 61
    assert not engine.infer(0, PICTURE)[0].any()


def test_of_any_calls_the_share_fails(troubled) -> None:
    engine, failed = troubled(failures=0.25), 0
    for _ in range(8):
        try:
            engine.infer(0, PICTURE)
        except TroubleFailure:
            failed += 1
    assert failed == 2


def test_a_slow_one_takes_its_time_again(network: Engine) -> None:
    times, slept = iter([0.0, 1.0, 1.25]), []
    engine = Troubled(network, Trouble(slower=3), lambda: next(times), slept.append)
    engine.infer(0, np.stack(PICTURE))
    assert slept == [0.5]


def test_an_unknown_trouble_is_refused() -> None:
    with pytest.raises(ValueError, match="sloer"):
        Trouble.read({"TROUBLED_SLOER": "2"})


def test_each_case_tells_a_trouble_that_there_is() -> None:
    for case in CASES:
        for container in case.change.get("podTemplate", {}).get("spec", {}).get("containers", []):
            Trouble.read({entry["name"]: entry["value"] for entry in container["env"]})
    assert trouble(slower=2)["podTemplate"]["spec"]["containers"][0]["name"] == "yoloserve"


def test_its_image_takes_the_models_along() -> None:
    text = (images.REPOSITORY / images.TROUBLED.dockerfile).read_text()
    assert images.inputs(text) == ["dev/troubled_engine", "build/canaries"]
