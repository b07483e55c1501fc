"""What the setup of the cluster does when a command fails."""

import gc
import http.client
import subprocess
import urllib.request
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from cluster import client, engine, gobuild, kindcluster, node_image, released, steps, up
from cluster.errors import NotPossibleHere, StepFailed
from cluster.mode import Mode

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
        "Error from server (ServiceUnavailable): apiserver is shutting down",
        "The apiserver is shutting down, please try again later.",
        "http2: server sent GOAWAY and closed the connection; LastStreamID=7, ErrCode=NO_ERROR",
        'Get "https://127.0.0.1:35365/api": http2: client connection lost',
        "write tcp 127.0.0.1:57162->127.0.0.1:35365: write: broken pipe",
        "context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
        "Error from server (Timeout): the server was unable to return a response in the time"
        " allotted, but may still be processing the request",
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


def test_a_download_is_tried_again_whatever_it_failed_of(tmp_path: Path) -> None:
    command = saying("Bad Gateway", times=len(steps.PAUSES_S), tmp_path=tmp_path)
    steps.again(lambda: steps.run(command, log="go"))
    assert runs(tmp_path) == len(steps.PAUSES_S) + 1


def test_a_download_is_not_tried_for_ever(tmp_path: Path) -> None:
    command = saying("Bad Gateway", times=99, tmp_path=tmp_path)
    with pytest.raises(StepFailed, match="Bad Gateway"):
        steps.again(lambda: steps.run(command, log="go"), pauses_s=[1.0])
    assert runs(tmp_path) == 2


class HalfAnAnswer(BytesIO):
    def read(self, *_: Any) -> bytes:
        raise http.client.IncompleteRead(b"half")


def test_an_answer_that_ends_half_way_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: HalfAnAnswer())
    with pytest.raises(NotPossibleHere, match=r"IncompleteRead.*example\.com by hand"):
        released._read("https://example.com/kind")


def a_go(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `go` whose `mod tidy` never fails, and leaves something out the first time."""
    program = folder / "go"
    asked = folder / "asked"
    program.write_text(
        f"#!/bin/sh\necho $1 >>{asked}\n[ $1 = mod ] || [ $(grep -c mod {asked}) = 2 ]\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(gobuild, "require_go", lambda: str(program))


def test_what_a_forgiving_tidy_left_out_is_resolved_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_go(tmp_path, monkeypatch)
    module = gobuild.Module("m", "example.com/m", "v1.0.0", tidy_may_complain=True)
    steps.again(lambda: gobuild._tidy(module, tmp_path))
    assert (tmp_path / "asked").read_text().split() == ["mod", "list", "mod", "list"]


@pytest.mark.parametrize(
    ("answers", "node_runs", "made"),
    [
        ([True], True, False),
        ([False, False, True, True], True, False),  # silent for a moment
        ([False, False], False, True),  # there is nothing to wait for
    ],
)
def test_a_cluster_is_made_anew_only_if_its_node_is_gone(
    answers: list[bool], node_runs: bool, made: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = iter(answers)
    monkeypatch.setattr(client, "answers", lambda: next(told, answers[-1]))
    monkeypatch.setattr(kindcluster, "runs", lambda: node_runs)
    assert up.still_there() is not made


def test_a_cluster_that_never_answers_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "answers", lambda: False)
    monkeypatch.setattr(client, "BACK_S", 0)
    monkeypatch.setattr(kindcluster, "runs", lambda: True)
    assert not up.still_there()


def test_a_node_that_outlived_its_engine_keeps_service_addresses_inside_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str] = []
    healthy = iter([False, True])  # its engine was down at first
    monkeypatch.setenv("YOLOFLEET_CACHE", str(tmp_path))
    monkeypatch.setattr(up, "healthy", lambda _: next(healthy))
    monkeypatch.setattr(up, "still_there", lambda: True)
    monkeypatch.setattr(engine, "ensure", lambda: None)
    monkeypatch.setattr(kindcluster, "run", lambda command, **_: asked.append(command[-1]))
    up.up(metrics=False)
    assert ["REJECT" in each for each in asked] == [True, True]
    assert all("-C" in each and "-A" in each for each in asked), "once is enough"


def test_what_kind_left_of_a_failure_is_deleted_before_it_tries_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str] = []

    def run(command: list[str], **_: Any) -> None:
        asked.append("create" if "create" in command else "other")
        if asked.count("create") == 1 and asked[-1] == "create":
            raise StepFailed("kind create cluster", "exit status 1", tmp_path / "log")

    monkeypatch.setattr(kindcluster, "run", run)
    monkeypatch.setattr(kindcluster, "delete", lambda: asked.append("delete"))
    monkeypatch.setattr(client, "kubectl", lambda *_: None)
    kindcluster.create(Mode.PULL)
    assert asked[:4] == ["delete", "create", "delete", "create"]


@pytest.mark.parametrize("another", [True, False])
def test_a_second_engine_that_ends_is_no_failure_while_the_first_starts(
    another: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = subprocess.Popen(["false"])
    ended.wait()
    if another:
        (tmp_path / "docker.pid").touch()
    answers = iter([False, False, True])
    monkeypatch.setattr(engine.subprocess, "Popen", lambda *_, **__: ended)
    monkeypatch.setattr(engine, "_runtime_options", list)
    monkeypatch.setattr(engine, "answers", lambda: next(answers))
    monkeypatch.setattr(engine, "PID_FILE", tmp_path / "docker.pid")
    if another:
        engine.start()
    else:
        with pytest.raises(StepFailed, match="exit status 1"):
            engine.start()


def test_who_started_an_engine_is_not_warned_that_it_still_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where tests start it, that warning would be the failure of whichever runs just then."""
    programs(tmp_path / "bin", monkeypatch, dockerd=f"echo $$ >{tmp_path}/pid; exec sleep 300")
    monkeypatch.setattr(engine, "_runtime_options", list)
    monkeypatch.setattr(engine, "answers", (tmp_path / "pid").exists)
    monkeypatch.setattr(engine, "_started", started := [])
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        engine.start()
        gc.collect()
    assert not warned
    [daemon] = started
    daemon.terminate()
    daemon.wait()


def programs(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    """Put programs of these names in front of all others."""
    folder.mkdir()
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("fails", "told"),
    [
        ("nothing", None),
        ("ctr version", "containerd did not answer"),
        ("! pgrep -x containerd", "containerd did not end"),
    ],
)
def test_a_node_image_is_committed_only_after_its_containerd_ended(
    fails: str, told: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker = f'echo "$*" >>{tmp_path}/asked; case "$*" in *"{fails}"*) exit 1;; esac'
    programs(tmp_path / "bin", monkeypatch, docker=docker, sleep="")
    if told:
        with pytest.raises(StepFailed, match=told):
            node_image._commit("base", "node", ["image"])
    else:
        node_image._commit("base", "node", ["image"])
    assert ("commit" in (tmp_path / "asked").read_text()) is (told is None)


def test_a_tool_found_through_our_own_link_is_not_linked_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, link = tmp_path / "released" / "helm", tmp_path / "tools" / "helm"
    real.parent.mkdir()
    real.write_text("#!/bin/sh\n")
    real.chmod(0o755)
    released._link(link, real)
    monkeypatch.setenv("PATH", str(link.parent))
    released._link(link, released._find("helm", "https://example.com/helm", "", None))
    assert link.resolve() == real
