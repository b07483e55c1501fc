"""One control plane for all faults; plays run beside each other, and those marked `alone` last.

A test here is a play: a coroutine that gets the theatre and its parameters. All plays that may run
beside others begin together when the first is asked for; each test then waits for its own. Where
several processes run tests, one has all of these, and another, with its own theatre, those of
`test_servers`.
"""

import contextlib
import inspect
from collections import Counter
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from cluster import assets
from controlplane.plane import control_plane
from faults.size import SEED, WHOLE, sized
from faults.theatre import Theatre

HERE = Path(__file__).parent
_open = contextlib.ExitStack()
_theatres: list[Theatre] = []  # one, or none
_plays: dict[str, Future[Any]] = {}
_results: dict[tuple[str, str], Counter[str]] = {}
_measured: dict[str, list[float]] = {}


def _ours(item: pytest.Item) -> bool:
    return HERE in item.path.parents and "theatre" in getattr(item, "fixturenames", ())


def _apart(item: pytest.Item) -> bool:
    """Say whether another process may have this play than most: see `tests/conftest.py`."""
    return item.path.name == "test_servers.py"


def _alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = [index for index, item in enumerate(items) if _ours(item)]
    plays = sorted((items[index] for index in places), key=_alone)
    for index, item in zip(places, plays, strict=True):
        item.add_marker(pytest.mark.controlplane)
        item.add_marker(pytest.mark.timeout(sized(1200, 7200)))  # a play waits for its turn
        items[index] = item


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not _ours(pyfuncitem):
        return None
    theatre = pyfuncitem.funcargs["theatre"]
    if _alone(pyfuncitem):
        for play in _plays.values():
            play.exception()  # wait for its end; what it was is told in its own test
        _begin(theatre, pyfuncitem)
    elif pyfuncitem.nodeid not in _plays:
        for item in pyfuncitem.session.items:
            if _ours(item) and not _alone(item) and _apart(item) == _apart(pyfuncitem):
                _begin(theatre, item)
    _plays[pyfuncitem.nodeid].result()
    return True


def _begin(theatre: Theatre, item: Any) -> None:
    play = inspect.unwrap(item.function)
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    _plays[item.nodeid] = theatre.play(play(theatre, **parameters))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the table to the process that tells it, where that is another."""
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["faults"] = {name: dict(told) for name, told in _results.items()}, dict(_measured)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    results, measured = getattr(node, "workeroutput", {}).get("faults", ({}, {}))
    for name, told in results.items():
        _results[name] = _results.get(name, Counter()) + Counter(told)
    for name, values in measured.items():
        _measured[name] = [*_measured.get(name, []), *values]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not _results:
        return
    form = "whole" if WHOLE else "bounded"
    terminalreporter.section(f"faults, {form} form, YOLOFLEET_FAULTS_SEED={SEED}")
    terminalreporter.line("| fault | trace | runs | passed | not reached | failed |")
    terminalreporter.line("|---|---|---|---|---|---|")
    for (fault, trace), told in sorted(_results.items()):
        counts = [told[name] for name in ("passed", "not reached", "failed")]
        cells = (fault, trace, sum(counts), *counts)
        terminalreporter.line("| " + " | ".join(map(str, cells)) + " |")
    for name, values in sorted(_measured.items()):
        terminalreporter.line(f"{name}: {', '.join(f'{value:.1f}' for value in sorted(values))}")


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """End the theatre with the last test of this folder.

    Its loop runs in a thread of this process: it would go on in what tests of other folders patch.
    """
    if nextitem is None or HERE not in nextitem.path.parents:
        _open.close()


@pytest.fixture
def theatre(tmp_path_factory: pytest.TempPathFactory) -> Theatre:
    """Give the theatre that all plays of this process share."""
    if not _theatres:
        plane = _open.enter_context(control_plane(assets.directory(), controllers=False))
        one = Theatre(plane, tmp_path_factory.mktemp("faults"))
        _theatres.append(_open.enter_context(one))
        _open.callback(_end, one)
    return _theatres[0]


def _end(theatre: Theatre) -> None:
    _theatres.clear()
    _plays.clear()
    _results.update(theatre.results)
    _measured.update(theatre.measured)
