"""kubectl with JSON answers: the cluster as a person's terminal sees it."""

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from cluster import client
from cluster.paths import tools
from demo_cluster.errors import KubectlFailed

Manifest = dict[str, Any]

TIMEOUT_S: Final = 60
DETECTORS: Final = "yolodetectors.yolofleet.io"
ROUTES: Final = "virtualservices.networking.istio.io"


class Kubectl:
    """kubectl for one namespace of the local cluster."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Return what kubectl prints. Raises KubectlFailed.

        Asks again where the API server went away meanwhile: what was asked may have been done.
        """
        for _ in range(client.TRIES - 1):
            try:
                return self._run(*arguments, stdin=stdin)
            except KubectlFailed as failure:
                if not client.lost(str(failure)):
                    raise
            client.wait_until_back()
        return self._run(*arguments, stdin=stdin)

    def _run(self, *arguments: str, stdin: str | None) -> str:
        try:
            done = subprocess.run(
                self.command(*arguments),
                input=stdin,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise KubectlFailed(
                f"kubectl {' '.join(arguments)}: no end after {TIMEOUT_S} s"
            ) from None
        if done.returncode:
            raise KubectlFailed(f"kubectl {' '.join(arguments)}\n{done.stderr.strip()}")
        return done.stdout

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of kubectl for this namespace."""
        found = tools()
        kubeconfig = ("--kubeconfig", str(found.kubeconfig))
        return [str(found.kubectl), *kubeconfig, "--namespace", self.namespace, *arguments]

    def find(self, kind: str, name: str) -> Manifest | None:
        """Return one object, or None where there is none."""
        text = self.run("get", kind, name, "--ignore-not-found", "--output=json")
        found: Manifest | None = json.loads(text) if text.strip() else None
        return found

    def list(self, kinds: str, selector: str = "") -> list[Manifest]:
        """Return all objects of some kinds (comma separated) that `selector` selects."""
        chosen = (f"--selector={selector}",) if selector else ()
        items: list[Manifest] = json.loads(self.run("get", kinds, *chosen, "--output=json"))[
            "items"
        ]
        return items

    def apply(self, source: Path | Manifest) -> None:
        """Apply a file, or a manifest, as a person does."""
        if isinstance(source, Path):
            self.run("apply", f"--filename={source}")
        else:
            self.run("apply", "--filename=-", stdin=json.dumps(source))

    def patch(self, kind: str, name: str, change: Manifest) -> None:
        """Merge `change` into an object."""
        self.run("patch", kind, name, "--type=merge", f"--patch={json.dumps(change)}")

    @contextmanager
    def watched(self, kind: str, name: str) -> Iterator["Watch"]:
        """Record each version of an object that the API server tells of, from now on."""
        command = self.command("get", kind, name, "--watch", "--output=json")
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        watch = Watch(process)
        try:
            watch.wait_for_first()
            yield watch
        finally:
            process.terminate()
            watch.join()


class Watch:
    """The versions of an object that `kubectl get --watch` prints, read as they come."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._first = threading.Event()
        self._thread = threading.Thread(target=self._read, name="watch", daemon=True)
        self.versions: list[Manifest] = []
        self._thread.start()

    def wait_for_first(self) -> None:
        """Return when the version that is there now has come: the watch has begun."""
        if not self._first.wait(TIMEOUT_S) or not self.versions:
            raise KubectlFailed("kubectl get --watch did not print the object")

    def join(self) -> None:
        """Return when everything is read, after the process has ended."""
        self._thread.join(TIMEOUT_S)
        self._process.wait(TIMEOUT_S)

    def _read(self) -> None:
        assert self._process.stdout
        text = ""
        with self._process.stdout as lines:
            for line in lines:
                text += line
                if line.rstrip() == "}":
                    versions, text = documents(text)
                    self.versions += versions
                    self._first.set()
        self._first.set()


def documents(text: str) -> tuple[list[Manifest], str]:
    """Return the whole JSON documents that `text` begins with, and what is left."""
    decoder = json.JSONDecoder()
    found: list[Manifest] = []
    while text := text.lstrip():
        try:
            document, end = decoder.raw_decode(text)
        except json.JSONDecodeError:
            break
        found.append(document)
        text = text[end:]
    return found, text
