"""What the setup of the cluster does when a command fails."""

from pathlib import Path

import pytest

from cluster import client, steps
from cluster.errors import StepFailed

LOST = 'failed to download openapi: Get "https://127.0.0.1:35365/openapi/v2?timeout=32s": EOF'
REFUSED = 'The Deployment "gate" is invalid: spec.replicas: Invalid value: -1'


@pytest.fixture(autouse=True)
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(steps, "cache_root", lambda: tmp_path)
    monkeypatch.setattr(client, "answers", lambda: True)
    return tmp_path / "logs" / "helm.log"


def saying(text: str, *, times: int, tmp_path: Path) -> list[str]:
    """A command that prints `text` and fails, so often; then it works."""
    counted = tmp_path / "counted"
    script = (
        f'echo run >>{counted}; test $(wc -l <{counted}) -gt {times} || {{ echo "$0"; exit 1; }}'
    )
    return ["sh", "-c", script, text]


def runs(tmp_path: Path) -> int:
    return len((tmp_path / "counted").read_text().splitlines())


def test_a_command_is_run_again_when_the_api_server_went_away(tmp_path: Path) -> None:
    command = saying(LOST, times=2, tmp_path=tmp_path)
    client.outlasting(lambda: steps.run(command, log="helm"))
    assert runs(tmp_path) == 3


def test_it_is_not_run_for_ever(tmp_path: Path) -> None:
    command = saying(LOST, times=99, tmp_path=tmp_path)
    with pytest.raises(StepFailed, match="EOF"):
        client.outlasting(lambda: steps.run(command, log="helm"))
    assert runs(tmp_path) == client.TRIES


def test_what_the_api_server_refuses_is_not_asked_again(tmp_path: Path) -> None:
    command = saying(REFUSED, times=99, tmp_path=tmp_path)
    with pytest.raises(StepFailed, match="Invalid value"):
        client.outlasting(lambda: steps.run(command, log="helm"))
    assert runs(tmp_path) == 1


def test_a_failure_shows_what_its_own_command_wrote(log: Path) -> None:
    steps.run(["echo", LOST], log="helm")
    with pytest.raises(StepFailed) as caught:
        steps.run(["sh", "-c", f"echo '{REFUSED}'; exit 1"], log="helm")
    assert LOST in log.read_text()
    assert LOST not in str(caught.value)
    assert REFUSED in str(caught.value)
