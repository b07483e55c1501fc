"""The plugin: what was typed in, what to ask kubectl for, and what is shown.

Exits 0, 1 when the cluster or the detector says no, and 2 when it was typed wrongly. An edit that
was cut off exits 130 (Ctrl-C) or 141 (nobody reads what it prints): was it made? Nobody knows.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from yolofleet.api import names
from yolofleet.api.seen import Raw, Seen
from yolofleet.cli import edits
from yolofleet.cli.edits import NothingToDo
from yolofleet.cli.kubectl import (
    DETECTORS,
    RECORDS,
    Changed,
    Failed,
    Forbidden,
    Kubectl,
    answer,
    end,
    failure,
    listen,
)
from yolofleet.cli.merging import kept, removed, touched
from yolofleet.cli.operators import SELECTOR, NoPage, page
from yolofleet.cli.ownership import Owned, owned
from yolofleet.cli.tree import tree
from yolofleet.cli.watching import changes
from yolofleet.cli.why import why

Change = Callable[[Seen], edits.Edit]

OK, REFUSED = 0, 1
INTERRUPTED, UNREAD = 130, 141
"""As shells tell what ended by SIGINT and SIGPIPE."""
_TRIES: Final = 5
_CLEAR: Final = "\x1b[H\x1b[2J\x1b[3J"
_NONE: Final = "There is no detector here; -A shows those of all namespaces."

GLOBAL: Final = (
    *("--context", "--kubeconfig", "--cluster", "--user", "--server", "--token"),
    *("--as", "--as-group", "--as-uid", "--certificate-authority", "--tls-server-name"),
    "--request-timeout",
)
"""kubectl's flags that say which cluster is asked, and as whom."""

EDITS: Final[dict[str, tuple[str, Callable[..., edits.Edit]]]] = {
    "promote": ("copy the canary into the spec, and remove it", edits.promote),
    "approve": ("let the step go on that waits for your word", edits.approve),
    "accept": ("let a revision go on that analysis called off", edits.accept),
    "retry": ("have it judged again", edits.retry),
    "pause": ("hold a release where it is", edits.pause),
    "resume": ("let it go on", edits.resume),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may know no └: it shows ? there
        sys.stdout.reconfigure(errors="replace")
    asked = _parser().parse_args(arguments)
    try:
        status = _run(asked)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        # the only way out of what goes on for ever
        endless = asked.run is dashboard or getattr(asked, "watch", False)
        return _cut_off(asked, INTERRUPTED, OK if endless else INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is left in it
        return _cut_off(asked, UNREAD, OK)  # `| head` has seen enough


def _run(asked: argparse.Namespace) -> int:
    try:
        return int(asked.run(asked, Kubectl(_flags(asked))))
    except (Failed, NothingToDo, NoPage) as error:
        print(error, file=sys.stderr)
        return REFUSED


def _cut_off(asked: argparse.Namespace, edited: int, looked: int) -> int:
    """Return the exit status, by whether it was an edit that was cut off, and say so."""
    if asked.run not in (edit, rollback, abort):
        return looked
    print(
        f"Cut off: nobody knows whether {asked.name} was changed. kubectl yd get {asked.name} shows"
        " how it is.",
        file=sys.stderr,
    )
    return edited


# seeing


def get(asked: argparse.Namespace, kubectl: Kubectl) -> int:
    """Show detectors as a tree, once or whenever they change."""
    if asked.watch:
        return _watch(asked, kubectl)
    found, pods = _read(kubectl, asked.name, _everywhere(asked))
    if asked.name and not found:
        raise Failed(_no_such(asked.name))
    if not found:
        print(_NONE, file=sys.stderr)
        return OK
    print(tree(found, pods, now=datetime.now(UTC), wide=asked.all_namespaces), end="")
    return OK


def explain(asked: argparse.Namespace, kubectl: Kubectl) -> int:
    """Say why a detector is not as asked."""
    found, pods = _read(kubectl, asked.name, ())
    if not found:
        raise Failed(_no_such(asked.name))
    print(why(found[0], pods, kubectl.typed), end="")
    return OK


def _watch(asked: argparse.Namespace, kubectl: Kubectl) -> int:
    everywhere, watching = _everywhere(asked), ("--watch", "--output-watch-events")
    if not answer(kubectl.start(*_detectors(asked.name), *everywhere))["items"]:
        if asked.name:
            raise Failed(_no_such(asked.name))
        print(_NONE, file=sys.stderr)
    watches = {
        "detectors": lambda: kubectl.start(*_detectors(asked.name), *watching, *everywhere),
        "pods": lambda: kubectl.start(*_pods(asked.name), *watching, *everywhere),
    }
    on_screen, shown, told = sys.stdout.isatty(), "", False
    with contextlib.closing(changes(watches, frozenset({"pods"}))) as worlds:
        for world in worlds:
            found = [Seen(raw) for raw in world.all("detectors")]
            now = datetime.now(UTC) if on_screen else None
            text = tree(found, world.all("pods"), now=now, wide=asked.all_namespaces)
            if is_news := text != shown and bool(found or shown):
                print(_CLEAR + text if on_screen else text, flush=True)
            hidden = world.hidden.get("pods")
            if hidden and (not told or (on_screen and is_news)):
                _tell_hidden(hidden)
            shown, told = text, bool(hidden)
    return OK


def _tell_hidden(error: Forbidden) -> None:
    print(f"Pods are not shown: {error}", file=sys.stderr)


def _read(kubectl: Kubectl, name: str | None, where: Sequence[str]) -> tuple[list[Seen], list[Raw]]:
    """Read detectors and their pods at once; no pods where the caller may not see them."""
    detectors = kubectl.start(*_detectors(name), *where)
    pods = kubectl.start(*_pods(name), *where)
    try:
        found = [Seen(raw) for raw in answer(detectors)["items"]]
    except BaseException:
        end(pods)
        raise
    try:
        return found, answer(pods)["items"]
    except Forbidden as error:
        _tell_hidden(error)
        return found, []


def _detectors(name: str | None) -> list[str]:
    one = [f"--field-selector=metadata.name={name}"] if name else []
    return ["get", DETECTORS, "-o=json", "--show-managed-fields", *one]


def _pods(name: str | None) -> list[str]:
    label = f"{names.DETECTOR_LABEL}={name}" if name else names.DETECTOR_LABEL
    return ["get", "pods", "-o=json", f"--selector={label}"]


def _everywhere(asked: argparse.Namespace) -> Sequence[str]:
    return ("--all-namespaces",) if asked.all_namespaces else ()


def _no_such(name: str) -> str:
    return (
        f"there is no detector {name} in this namespace: is it in another one (-n) or another"
        " cluster (--context)? kubectl yd get -A lists all"
    )


def dashboard(asked: argparse.Namespace, kubectl: Kubectl) -> int:
    """Forward the page of the fleet to this machine, until it is interrupted."""
    where = () if asked.namespace else ("--all-namespaces",)
    pods = answer(kubectl.start("get", "pods", "-o=json", f"--selector={SELECTOR}", *where))
    found = page(pods["items"])
    elsewhere = Kubectl([each for each in kubectl.flags if not each.startswith("--namespace=")])
    ports, namespace = f"{asked.port}:{found.port}", f"--namespace={found.namespace}"
    forward = elsewhere.start("port-forward", f"pod/{found.pod}", ports, namespace)
    complaints = listen(forward)
    try:
        for line in forward.stdout or ():  # the first that it says is that it listens
            if line.startswith("Forwarding from 127.0.0.1:"):
                local = line.split(":")[1].split()[0]
                print(f"The fleet: http://localhost:{local}/  (Ctrl-C ends it)", flush=True)
        raise failure(complaints())
    finally:
        end(forward)


# editing


def edit(asked: argparse.Namespace, kubectl: Kubectl) -> int:
    """Make the change that a command is for."""
    _, change = EDITS[asked.command]
    options = {name: vars(asked)[name] for name in asked.options}
    return _make(asked, kubectl, lambda seen: change(seen, **options))


def rollback(asked: argparse.Namespace, kubectl: Kubectl) -> int:
    """Put the spec back that a revision was made of."""
    return _make(
        asked,
        kubectl,
        lambda seen: edits.roll_back(seen, _record(kubectl, seen, asked.revision)),
    )


def abort(asked: argparse.Namespace, kubectl: Kubectl) -> int:
    """Call off the release under way, or else remove the canary."""

    def change(seen: Seen) -> edits.Edit:
        if edits.is_called_off_by_the_spec(seen):
            return edits.abort_release(seen, _record(kubectl, seen, seen.stable))
        return edits.abort_canary(seen)

    return _make(asked, kubectl, change)


def _one(kubectl: Kubectl, name: str) -> Seen:
    """Return the detector that is to be edited."""
    raw = answer(kubectl.start("get", DETECTORS, name, "-o=json", "--show-managed-fields"))
    seen = Seen(raw)
    if seen.leaving:
        raise NothingToDo(f"{name} is {seen.leaving}: an edit would change nothing of it any more")
    return seen


def _record(kubectl: Kubectl, seen: Seen, revision: str) -> Raw:
    """Return the record of one of the detector's revisions."""
    label = f"--selector={names.DETECTOR_LABEL}={seen.name}"
    where = ("--namespace", seen.namespace)
    records = answer(kubectl.start("get", RECORDS, "-o=json", label, *where))
    found: dict[str, Raw] = {each["metadata"]["name"]: each for each in records["items"]}
    if revision in found:
        return found[revision]
    ordered = sorted(found.values(), key=lambda record: int(record.get("revision") or 0))
    known = ", ".join(record["metadata"]["name"] for record in ordered) or "none"
    raise Failed(
        f"{seen.name} has no record of a revision {revision!r}; there are, oldest first: {known}."
        " What is not kept any more (spec.revisionHistory) has to come from Git"
    )


def _make(asked: argparse.Namespace, kubectl: Kubectl, change: Change) -> int:
    """Show the change and make it; where a GitOps tool would put it back, say what to commit."""
    seen = _one(kubectl, asked.name)
    wish = change(seen)
    if not asked.force and (owners := owned(seen, touched(wish.patch))):
        return _to_commit(seen, wish, owners)
    print(kubectl.typed(wish.typed), flush=True)  # where nobody reads it, nothing is sent
    seen, after = _sent(asked, kubectl, seen, wish, change)
    if after["metadata"].get("resourceVersion") == seen.version and not asked.dry_run:
        print("Nothing changed: it was so already.")
    elif asked.dry_run:
        print(f"Tried only, and taken by the API server: {wish.says}. Nothing was changed.")
    else:
        look = kubectl.typed(f"kubectl yd get {seen.name} -n {seen.namespace} -w")
        print(f"Done: {wish.says}. {look} shows it.")
    return OK


def _sent(
    asked: argparse.Namespace, kubectl: Kubectl, seen: Seen, wish: edits.Edit, change: Change
) -> tuple[Seen, Raw]:
    """Send `wish`; return what it was made of, and what came of it.

    The operator writes its status at any time: as long as nobody has touched the spec, and it is
    the same change of what is there now, it is sent again.
    """
    for _ in range(_TRIES):
        with contextlib.suppress(Changed):
            return seen, kubectl.patch(seen, wish.patch, dry_run=asked.dry_run)
        now = _one(kubectl, asked.name)
        if now.edit_of_spec != seen.edit_of_spec or change(now) != wish:
            break
        seen = now
    return seen, kubectl.patch(seen, wish.patch, dry_run=asked.dry_run)


def _to_commit(seen: Seen, wish: edits.Edit, owners: Sequence[Owned]) -> int:
    said = "; ".join(str(each) for each in owners)
    print(
        f"Nothing was changed: {said}, and would be put back. Commit this where that tool reads it"
        " (--force edits the detector all the same):\n",
        file=sys.stderr,
    )
    manifest: dict[str, Any] = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": seen.name, "namespace": seen.namespace},
    }
    for name, part in kept(wish.patch).items():
        manifest[name] = {**manifest.get(name, {}), **part}
    print(_as_yaml(manifest), end="")
    for path in removed(wish.patch):
        print(f"# remove {'.'.join(path)}")
    return REFUSED


def _as_yaml(manifest: dict[str, Any]) -> str:
    try:
        import yaml  # here: who sees a tree need not wait for it
    except ImportError:
        return json.dumps(manifest, indent=2) + "\n"  # JSON is YAML
    unicode = "utf" in (sys.stdout.encoding or "").lower()
    text: str = yaml.safe_dump(manifest, sort_keys=False, allow_unicode=unicode)
    return text


# what may be typed


def _parser() -> argparse.ArgumentParser:
    everywhere = _globals()
    parser = argparse.ArgumentParser(
        prog="kubectl yd",
        description="See and edit YoloDetectors, as you would by kubectl.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, says: str, run: Callable[..., int]) -> argparse.ArgumentParser:
        one = commands.add_parser(
            name, help=says, description=says, parents=[everywhere], allow_abbrev=False
        )
        one.set_defaults(run=run)
        return one

    seeing = command("get", "show detectors, their revisions and pods as a tree", get)
    seeing.add_argument("name", nargs="?", metavar="NAME", help="only this one")
    seeing.add_argument("-A", "--all-namespaces", action="store_true", help="of all namespaces")
    seeing.add_argument("-w", "--watch", action="store_true", help="again whenever it changes")
    command("explain", "say why a detector is not as asked, and the fix", explain).add_argument(
        "name", metavar="NAME"
    )
    paging = command(
        "dashboard", "open the operator's page of the fleet to this machine", dashboard
    )
    paging.add_argument("--port", type=int, default=8083, help="here; 0: any that is free")
    for name, (says, _) in EDITS.items():
        one = _editing(command(name, says, edit))
        one.set_defaults(options=_approving(one) if name == "approve" else ())
    _editing(command("abort", "call a release off, or else remove the canary", abort))
    back = _editing(command("rollback", "put back the spec of a former revision", rollback))
    back.add_argument("revision", metavar="REVISION", help="as `kubectl yd get` names it")
    return parser


def _editing(one: argparse.ArgumentParser) -> argparse.ArgumentParser:
    one.add_argument("name", metavar="NAME")
    one.add_argument(
        "--dry-run", action="store_true", help="have the API server try it, and change nothing"
    )
    one.add_argument(
        "--force", action="store_true", help="also what a GitOps tool owns, and may put back"
    )
    return one


def _approving(one: argparse.ArgumentParser) -> Sequence[str]:
    """Add the flags of `approve`; return their names."""
    one.add_argument("--revision", metavar="R", help="only if it is this one that waits")
    one.add_argument("--step", type=int, metavar="N", help="only if it is at this step")
    one.add_argument(
        "--without-proof",
        action="store_true",
        help="where analysis has not proved enough: go on all the same",
    )
    return "revision", "step", "without_proof"


def _globals() -> argparse.ArgumentParser:
    """Return kubectl's own flags, which are handed on."""
    shared = argparse.ArgumentParser(add_help=False)
    group = shared.add_argument_group("which cluster, and as whom (as of kubectl)")
    shorts = {"--namespace": ("-n",), "--server": ("-s",)}
    for flag in ("--namespace", *GLOBAL):
        short = shorts.get(flag, ())
        name = flag.strip("-").upper()
        group.add_argument(*short, flag, action="append", default=[], metavar=name)
    group.add_argument("--insecure-skip-tls-verify", action="store_true")
    return shared


def _flags(asked: argparse.Namespace) -> list[str]:
    """Return kubectl's flags as they were given; which of two holds is for kubectl to say."""
    names = {flag: flag.strip("-").replace("-", "_") for flag in ("--namespace", *GLOBAL)}
    flags = [f"{flag}={value}" for flag, name in names.items() for value in vars(asked)[name]]
    return flags + (["--insecure-skip-tls-verify"] if asked.insecure_skip_tls_verify else [])


if __name__ == "__main__":
    sys.exit(main())
