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
    monkeypatch.setattr(client.time, "sleep", lambda _: None)
    return tmp_path / "logs" / "helm.log"


def saying(text: str, *, times: int, tmp_path: Path) -> list[str]:
    """A command that prints `text` and fails, so often; then it works."""
    told, counted = tmp_path / "told", tmp_path / "counted"
    told.write_text(text)
    script = (
        f"echo run >>{counted}; test $(wc -l <{counted}) -gt {times} || {{ cat {told}; exit 1; }}"
    )
    return ["sh", "-c", script]


def runs(tmp_path: Path) -> int:
    return len((tmp_path / "counted").read_text().splitlines())


@pytest.mark.parametrize(
    "told",
    [
        LOST,
        "The connection to the server 127.0.0.1:1 was refused - did you specify the right host?",
        "Unable to connect to the server: net/http: TLS handshake timeout",
        "error from a previous attempt: read tcp 127.0.0.1:57162: read: connection reset by peer",
        "Error from server: etcdserver: request timed out",
        "Error: kube api: the server is currently unable to handle the request",
    ],
)
def test_a_command_is_run_again_when_the_api_server_went_away(told: str, tmp_path: Path) -> None:
    command = saying(told, times=2, tmp_path=tmp_path)
    client.outlasting(lambda: steps.run(command, log="helm"))
    assert runs(tmp_path) == 3


def test_it_is_not_run_for_ever(tmp_path: Path) -> None:
    command = saying(LOST, times=99, tmp_path=tmp_path)
    with pytest.raises(StepFailed, match="EOF"):
        client.outlasting(lambda: steps.run(command, log="helm"))
    assert runs(tmp_path) == client.TRIES


def test_it_waits_until_the_api_server_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([False, False, True])
    monkeypatch.setattr(client, "answers", lambda: next(answers))
    command = saying(LOST, times=1, tmp_path=tmp_path)
    client.outlasting(lambda: steps.run(command, log="helm"))
    assert next(answers, None) is None


@pytest.mark.parametrize(
    "told",
    [REFUSED, 'Internal error: failed calling webhook "x": dial tcp: connection refused', ""],
)
def test_what_is_refused_is_not_asked_again(told: str, tmp_path: Path) -> None:
    command = [*saying(told, times=99, tmp_path=tmp_path), "EOF"]
    with pytest.raises(StepFailed):
        client.outlasting(lambda: steps.run(command, log="helm"))
    assert runs(tmp_path) == 1


def test_a_failure_shows_what_its_own_command_wrote(log: Path) -> None:
    steps.run(["echo", LOST], log="helm")
    with pytest.raises(StepFailed) as caught:
        steps.run(["sh", "-c", f"echo '{REFUSED}'; exit 1"], log="helm")
    assert LOST in log.read_text()
    assert LOST not in str(caught.value)
    assert REFUSED in str(caught.value)
