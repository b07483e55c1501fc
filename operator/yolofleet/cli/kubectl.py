"""kubectl as the way to the cluster: kubeconfig, log-ins, proxies and rights are the caller's."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, Final

from yolofleet.api import names
from yolofleet.api.seen import Raw, Seen

DETECTORS: Final = f"{names.PLURAL}.{names.GROUP}"
RECORDS: Final = "controllerrevisions.apps"
MANAGER: Final = "kubectl-yd"

_LOG: Final = re.compile(r"^[EWI]\d{4} \d\d:\d\d:\d\d\.\d+ .*\n?", re.MULTILINE)
"""Lines of kubectl's own log, which come before what it says."""

_LAST_LINES: Final = 100
"""Of what goes on for days: why it ended is among the last."""

_LAST_S: Final = 1.0
"""So long what kubectl said last is awaited: who goes on with its stderr may never end it."""


class Failed(Exception):
    """The cluster could not be asked, or said no; the message says what to do."""


class Forbidden(Failed):
    """The caller may not do that."""


class Changed(Failed):
    """It is another one than was read."""


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl with the caller's global flags (`--context`, `-n`…)."""

    flags: Sequence[str] = ()

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start kubectl."""
        program = os.environ.get("KUBECTL") or "kubectl"
        try:
            return subprocess.Popen(
                [program, *arguments, *self.flags],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
            )
        except OSError as error:
            raise Failed(
                f"{program} cannot be run ({error.strerror}): install kubectl, or name it in the"
                " variable KUBECTL"
            ) from error

    def typed(self, command: str) -> str:
        """Return `command`, which has a namespace, as it is typed to ask the same cluster."""
        apart = ("--namespace=", "--token=", "--request-timeout=")  # a token is for no screen
        flags = [shlex.quote(each) for each in self.flags if not each.startswith(apart)]
        return " ".join([command, *flags])

    def patch(self, seen: Seen, patch: dict[str, Any], *, dry_run: bool) -> Raw:
        """Change the very detector that was read. `Changed` when it is another one meanwhile."""
        import tempfile  # here: who sees a tree need not wait for it

        metadata = {**patch.get("metadata", {}), "resourceVersion": seen.version}
        tried = ("--dry-run=server",) if dry_run else ()
        where = ("--namespace", seen.namespace, f"--field-manager={MANAGER}", *tried)
        # a file, only for the caller: Linux passes no argument above 128 KiB
        descriptor, path = tempfile.mkstemp(suffix=".json")
        try:
            with open(descriptor, "w") as file:
                json.dump({**patch, "metadata": metadata}, file)
            change = ("--type=merge", f"--patch-file={path}", "-o=json")
            return answer(self.start("patch", DETECTORS, seen.name, *change, *where))
        finally:
            os.unlink(path)


def answer(process: subprocess.Popen[str]) -> Raw:
    """Wait for what `process` answers. Raises `Failed`.

    Its stdout is read to the end, as a shell would: kubectl hands that on to nobody, and its
    stderr to whatever logs in for it, of which an agent may stay.
    """
    complaints = listen(process)
    assert process.stdout
    with process.stdout:
        out = process.stdout.read()
    if process.wait():
        raise failure(complaints())
    return _read(out)


def events(process: subprocess.Popen[str]) -> Iterator[Raw]:
    """Return the events of a watch as they come, each a line of its own. Raises `Failed`."""
    return (_read(line) for line in process.stdout or ())


def listen(process: subprocess.Popen[str]) -> Callable[[], str]:
    """Take in what `process` complains of from now on: it would stop at a pipe that is full.

    Returns what waits for its end, and gives the last of it.
    """
    last: deque[str] = deque(maxlen=_LAST_LINES)

    def take_in(pipe: IO[str]) -> None:
        with pipe:  # nobody else may: to close it while it is read waits for who writes there
            last.extend(pipe)

    assert process.stderr
    thread = threading.Thread(target=take_in, args=(process.stderr,), daemon=True)
    thread.start()

    def complaints() -> str:
        process.wait()
        thread.join(_LAST_S)
        return "".join(last)

    return complaints


def end(process: subprocess.Popen[str]) -> None:
    """End what nobody waits for any more."""
    process.kill()
    if process.stdout:
        process.stdout.close()
    process.wait()


def _read(text: str) -> Raw:
    try:
        if isinstance(found := json.loads(text), dict):
            return found
    except RecursionError as error:
        raise Failed(
            "a podTemplate among what kubectl answered is nested too deep to be read; the operator"
            " refuses it, too (InvalidSpec): ask for another detector by its name"
        ) from error
    except ValueError:
        pass
    raise Failed("kubectl was ended in the middle of a word, or its answer is no JSON: try again")


def failure(err: str) -> Failed:
    """Return what kubectl said, with what to do about it."""
    said = _LOG.sub("", err).strip() or err.strip() or "kubectl failed without a word"
    said = said.removeprefix("error: ")
    for pattern, kind, hint in _HINTS:
        if re.search(pattern, said):
            return kind(f"{said}\n{hint}")
    return Failed(said)


_HINTS: Final[tuple[tuple[str, type[Failed], str], ...]] = (
    (
        r"\(Conflict\)",
        Changed,
        "It changed since it was read (somebody else, or the operator), and nothing was"
        " overwritten: look at it, and type the command again.",
    ),
    (
        r"admission webhook .* denied the request|ValidatingAdmissionPolicy .* denied request",
        Failed,
        "What was typed was refused, and not for want of rights: whoever runs that check in the"
        " cluster knows what it asks for.",
    ),
    (
        r"\(Forbidden\)[^\n]* at the cluster scope",
        Forbidden,
        "You may not see all namespaces: say by -n which one is meant (for the dashboard, the"
        " operator's).",
    ),
    (
        r"\(Forbidden\)",
        Forbidden,
        "Your own rights are asked for. The cluster's role `view` sees detectors and `edit` changes"
        " them, unless the chart's rbac.aggregateToDefaultRoles is false.",
    ),
    (
        rf"\(NotFound\): {names.PLURAL}",
        Failed,
        "Is it in another namespace (-n) or cluster (--context)? kubectl yd get -A lists all.",
    ),
    (
        r"doesn't have a resource type|could not find the requested resource",
        Failed,
        "YoloFleet is not installed in this cluster. Is --context the right one?",
    ),
    (
        r"(?i)unable to connect to the server|connection to the server .* was refused|timed out",
        Failed,
        "The API server cannot be reached: is --context the right one, and the network up?",
    ),
    (
        r"(?i)must be logged in|\(Unauthorized\)|executable .* not found|getting credentials",
        Failed,
        "Log in again; the command of the kubeconfig's user has to work by itself.",
    ),
)
