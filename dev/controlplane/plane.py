"""Start, restart and stop the programs."""

from __future__ import annotations

import contextlib
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml

from controlplane import ports

ADMIN: Final = "admin-of-a-throw-away-cluster"
OPERATOR: Final = "operator-of-a-throw-away-cluster"
OPERATOR_USER: Final = "yolofleet-operator"
OTHER: Final = "other-operator-of-a-throw-away-cluster"
OTHER_USER: Final = "yolofleet-operator-whose-rights-change"

START_SECONDS: Final = 300.0
CONTROLLERS: Final = (
    "deployment-controller",
    "replicaset-controller",
    "garbage-collector-controller",
    "horizontal-pod-autoscaler-controller",
    "disruption-controller",
    "endpointslice-controller",
    "namespace-controller",
    "resourceclaim-controller",
)


class NotStarted(Exception):
    """A program ended, or did not answer in time; the message has the end of its log."""


@dataclass
class Program:
    """One program: how it is called, where its log is, and its process while it runs."""

    name: str
    arguments: Sequence[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; its log is appended to."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.arguments, stdout=log, stderr=log)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it and wait until it has ended."""
        if self.process is None:
            return
        self.process.send_signal(number)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def signal(self, number: int) -> None:
        """Send it a signal."""
        if self.process is not None:
            self.process.send_signal(number)

    def wait_until(self, answers: Callable[[], bool]) -> None:
        """Wait until `answers`. Raises `NotStarted`."""
        deadline = time.monotonic() + START_SECONDS
        while not answers():
            ended = self.process is None or self.process.poll() is not None
            if ended or time.monotonic() > deadline:
                why = "ended" if ended else f"did not answer within {START_SECONDS:.0f} s"
                tail = self.log.read_text(errors="replace")[-3000:]
                raise NotStarted(f"{self.name} {why}; the end of its log:\n{tail}")
            time.sleep(0.05)


@dataclass(frozen=True)
class AnotherServer:
    """A second API server of the same cluster."""

    program: Program
    kubeconfig: Path


@dataclass
class ControlPlane:
    """The running programs. server: address of the API server; folder: logs, keys, kubeconfigs.

    scheduler: started by who wants one; pods are placed by nobody else.
    """

    server: str
    folder: Path
    etcd: Program
    apiserver: Program
    controller_manager: Program
    scheduler: Program
    trust: ssl.SSLContext = field(repr=False)

    def kubeconfig(self, token: str = ADMIN) -> Path:
        """Return a kubeconfig file for the user with `token`."""
        path = self.folder / f"{token}.kubeconfig"
        if not path.exists():
            path.write_text(yaml.safe_dump(_kubeconfig(self.server, self.folder, token)))
        return path

    def restart_apiserver(self, number: int = signal.SIGKILL, after: float = 0.0) -> None:
        """End the API server, as a crash or an upgrade does, and start it `after` seconds later."""
        self.apiserver.stop(number)
        time.sleep(after)
        self.apiserver.start()
        self.apiserver.wait_until(self.ready)

    def another_apiserver(self) -> AnotherServer:
        """Start a second API server over the same etcd; the caller stops it."""
        (port,) = ports.reserve(1)
        arguments = [
            f"--secure-port={port}" if argument.startswith("--secure-port=") else argument
            for argument in self.apiserver.arguments
        ]
        program = Program("kube-apiserver", arguments, self.folder / "kube-apiserver-2.log")
        server = f"https://127.0.0.1:{port}"
        config = self.folder / f"second-{port}.kubeconfig"
        config.write_text(yaml.safe_dump(_kubeconfig(server, self.folder, ADMIN)))
        program.start()
        program.wait_until(lambda: _answers(f"{server}/readyz", self.trust))
        return AnotherServer(program, config)

    def ready(self) -> bool:
        """Return whether the API server says that it is ready."""
        return _answers(f"{self.server}/readyz", self.trust)


@contextlib.contextmanager
def control_plane(
    binaries: Path,
    *,
    configure: Callable[[Path], Sequence[str]] = lambda _folder: (),
    controllers: bool = True,
) -> Iterator[ControlPlane]:
    """Run a control plane of the programs in `binaries`; it is gone when the block is left.

    configure: given the folder, returns what the API server is started with besides.
    controllers: whether kube-controller-manager runs.
    """
    folder = Path(tempfile.mkdtemp(prefix="yolofleet-plane-"))
    plane = _prepare(binaries, folder, configure(folder))
    try:
        plane.etcd.start()
        plane.apiserver.start()
        plane.apiserver.wait_until(plane.ready)
        if controllers:
            plane.controller_manager.start()
        yield plane
    finally:
        for program in (plane.scheduler, plane.controller_manager, plane.apiserver, plane.etcd):
            program.stop(signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def _prepare(binaries: Path, folder: Path, of_apiserver: Sequence[str]) -> ControlPlane:
    client, peer, secure, kcm, scheduler = ports.reserve(5)
    server = f"https://127.0.0.1:{secure}"
    _write_keys(folder)
    config = folder / "controllers.kubeconfig"
    config.write_text(yaml.safe_dump(_kubeconfig(server, folder, ADMIN)))
    key = folder / "accounts.key"

    def program(name: str, *arguments: str) -> Program:
        return Program(name, [str(binaries / name), *arguments], folder / f"{name}.log")

    return ControlPlane(
        server=server,
        folder=folder,
        trust=ssl.create_default_context(cafile=str(folder / "server.crt")),
        etcd=program(
            "etcd",
            f"--data-dir={folder / 'etcd'}",
            f"--listen-client-urls=http://127.0.0.1:{client}",
            f"--advertise-client-urls=http://127.0.0.1:{client}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            "--unsafe-no-fsync",  # nobody needs it after a power cut
            "--log-level=warn",
        ),
        apiserver=program(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{client}",
            "--bind-address=127.0.0.1",
            f"--secure-port={secure}",
            f"--tls-cert-file={folder / 'server.crt'}",
            f"--tls-private-key-file={folder / 'server.key'}",
            f"--token-auth-file={folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",  # nobody makes the accounts
            "--service-cluster-ip-range=10.96.0.0/14",  # a thousand detectors have many Services
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            *of_apiserver,
        ),
        controller_manager=program(
            "kube-controller-manager",
            f"--kubeconfig={config}",
            f"--authentication-kubeconfig={config}",
            f"--authorization-kubeconfig={config}",
            "--bind-address=127.0.0.1",
            f"--secure-port={kcm}",
            f"--cert-dir={folder / 'controller-manager'}",
            f"--controllers={','.join(CONTROLLERS)}",
            "--leader-elect=false",
            "--horizontal-pod-autoscaler-sync-period=1s",  # a test need not wait for 15 s
            "--horizontal-pod-autoscaler-downscale-stabilization=1s",
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
        ),
        scheduler=program(
            "kube-scheduler",
            f"--kubeconfig={config}",
            f"--authentication-kubeconfig={config}",
            f"--authorization-kubeconfig={config}",
            "--bind-address=127.0.0.1",
            f"--secure-port={scheduler}",
            "--leader-elect=false",
        ),
    )


def _write_keys(folder: Path) -> None:
    """Write the server's certificate, the accounts' key and the users' tokens."""
    _openssl("genrsa", "-out", str(folder / "accounts.key"), "2048")
    _openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"),
        *("-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
        *("-keyout", str(folder / "server.key"), "-out", str(folder / "server.crt")),
    )
    (folder / "tokens.csv").write_text(
        f'{ADMIN},admin,1,"system:masters"\n{OPERATOR},{OPERATOR_USER},2,""\n'
        f'{OTHER},{OTHER_USER},3,""\n'
    )


def _openssl(*arguments: str) -> None:
    try:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)
    except FileNotFoundError:
        raise NotStarted("openssl is missing; install the package `openssl`") from None


def _kubeconfig(server: str, folder: Path, token: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "bare",
        "contexts": [{"name": "bare", "context": {"cluster": "bare", "user": "bare"}}],
        "clusters": [
            {
                "name": "bare",
                "cluster": {
                    "server": server,
                    "certificate-authority": str(folder / "server.crt"),
                },
            }
        ],
        "users": [{"name": "bare", "user": {"token": token}}],
    }


def _answers(url: str, trust: ssl.SSLContext) -> bool:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {ADMIN}"})
    try:
        with urllib.request.urlopen(request, timeout=10, context=trust) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
