"""Flags, environment, and what is wrong with them."""

import pytest

from yoloserve.__main__ import main
from yoloserve.errors import InvalidSettings
from yoloserve.settings import SERVE_ONLY, Settings


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLOSERVE_MODEL", "demo://shapes-v2")
    monkeypatch.setenv("YOLOSERVE_CLASSES", '["circle", "star"]')
    monkeypatch.setenv("YOLOSERVE_SHA256", "AB" * 32)
    settings = Settings.read()
    assert settings.model == "demo://shapes-v2"
    assert settings.classes == ("circle", "star")
    assert settings.sha256 == "ab" * 32


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SHA256", "CLASSES", "IMAGE_SIZE", "MODEL"):
        monkeypatch.setenv(f"YOLOSERVE_{name}", "")
    assert Settings.read() == Settings()


def test_a_flag_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLOSERVE_IOU", "0.5")
    assert Settings.read(iou="0.6").iou == 0.6


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"port": "tcp://10.0.0.1:80"}, "YOLOSERVE_PORT: Input should be a valid integer"),
        ({"confidence": "1.5"}, "YOLOSERVE_CONFIDENCE: Input should be less than or equal to 1"),
        ({"backend": "tensorflow"}, "YOLOSERVE_BACKEND: Input should be 'auto', 'openvino'"),
        ({"classes": "circle"}, 'YOLOSERVE_CLASSES: Input should be a JSON list like ["person"'),
        ({"classes": "[1]"}, "YOLOSERVE_CLASSES: Input should be a valid string, not 1"),
        ({"sha256": "abc"}, "YOLOSERVE_SHA256: String should match pattern"),
    ],
)
def test_a_fault_names_the_variable_the_value_and_the_fix(given: dict[str, str], told: str) -> None:
    with pytest.raises(InvalidSettings) as error:
        Settings.read(**given)
    assert told in str(error.value)
    assert next(iter(given.values())).strip("[]") in str(error.value)


def test_every_fault_is_told_at_once() -> None:
    with pytest.raises(InvalidSettings, match=r"YOLOSERVE_IOU.*; YOLOSERVE_PORT"):
        Settings.read(iou=7, port=-1)


@pytest.mark.parametrize("command", ["serve", "predict", "bench"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    told = capsys.readouterr().out
    assert f"yoloserve {command}" in told
    assert "--model" in told


@pytest.mark.parametrize("command", ["predict", "evaluate", "convert", "bench"])
def test_the_other_commands_take_what_is_not_for_serving_alone(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    told = capsys.readouterr().out
    flags = {name for name in Settings.model_fields if f"--{name.replace('_', '-')} " in told}
    assert flags == Settings.model_fields.keys() - SERVE_ONLY
    assert {"port", "jwt_audiences", "termination_log"} <= SERVE_ONLY
    assert {"model", "confidence", "max_pixels"} <= flags


def test_the_help_of_serve_has_a_flag_for_every_setting(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    told = capsys.readouterr().out
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')} " in told


def test_a_star_is_every_address_as_asyncio_says_it(monkeypatch) -> None:
    monkeypatch.setenv("YOLOSERVE_HOST", "*")
    assert Settings.read().host == ""
    with pytest.raises(InvalidSettings, match="HOST \\* needs a PORT"):
        Settings.read(port=0)
