"""The judge's second source on a real Prometheus: what it answers is what the played one does."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from controlplane.kube import eventually
from played_pods import CANARY, STABLE, Server
from played_prometheus import Prometheus, metrics, text
from real_prometheus import RealPrometheus, Target, pages, running
from yolofleet.analysis.evidence import Evidence, parse
from yolofleet.analysis.prometheus import Scraped, query, read
from yolofleet.cluster import prometheus as asking
from yolofleet.cluster.prometheus import http_query
from yolofleet.cluster.sampler import to_pods

PLAIN, RELABELLED, SAID, TWICE = (f"gate-{name}" for name in ("a", "b", "c", "d"))
PODS = {PLAIN: STABLE, RELABELLED: CANARY, SAID: STABLE, TWICE: CANARY}
ASKED = query(PODS, namespace="shop", canary=CANARY)
TARGETS: list[tuple[str, dict[str, str]]] = [
    (PLAIN, {"namespace": "shop", "pod": PLAIN}),
    (RELABELLED, {"namespace": "shop", "pod": RELABELLED, "detector": "gate", "revision": CANARY}),
    (
        SAID,
        {
            "exported_namespace": "shop",
            "exported_pod": SAID,
            "namespace": "monitoring",
            "pod": "prometheus-0",
        },
    ),
    (TWICE, {"namespace": "shop", "pod": TWICE, "job": "one"}),
    (TWICE, {"namespace": "shop", "pod": TWICE, "job": "other"}),
]


def a_server(revision: str) -> Server:
    server = Server("uid", revision, started=1_764_400_000.25, capacity=41.25)
    server.golden = {"state": "done", "map50": 0.9312345, "set_sha256": "ab" * 32, "images": 20}
    server.answers(800, ms=21, circle=1200, **{'a "square" \\ one\n': 77, "": 3})
    server.answers(3, ms=1e6)
    server.requests["overloaded"] = 3
    server.frame(700, blind=2, failed=1)
    server.pair("circle", 900, 880, size=0, added=5)
    server.pair('a "square" \\ one\n', 30, 20, size=2)
    server.confused = {"circle": {"star": 4}}
    server.compute["canary"][30] = 699
    server.compute["stable"][29] = 699
    return server


SERVERS = {name: a_server(revision) for name, revision in PODS.items()}


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Prometheus that gets no processor for five seconds is none that hangs."""
    monkeypatch.setattr(asking, "TIMEOUT_S", 60.0)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealPrometheus]:
    told = {f"/{n}": lambda server=s: text(metrics(server)) for n, s in SERVERS.items()}
    with pages(told) as address:
        targets = [Target(address, f"/{name}", labels) for name, labels in TARGETS]
        folder = tmp_path_factory.mktemp("prometheus")
        with running(folder, targets) as prometheus:
            prometheus.await_scrapes()
            yield prometheus


def in_any_order(vector: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return labels and values, without the names of targets and the times of scrapes."""
    return sorted(
        (
            json.dumps(
                {k: v for k, v in each["metric"].items() if k not in ("instance", "job")},
                sort_keys=True,
            ),
            "" if "yolofleet_told" in each["metric"] else f"{float(each['value'][1])!r}",
        )
        for each in vector
    )


async def test_the_played_one_answers_as_the_real_one_does(prometheus: RealPrometheus) -> None:
    played = Prometheus()
    for number, (name, labels) in enumerate(TARGETS):
        played.scrape(metrics(SERVERS[name]), **({"job": f"{number}"} | labels))
    expected = in_any_order(played.vector(ASKED))
    assert len(expected) > 600

    def answered() -> bool:
        """Say the same, once no target is late for its scrape: what is late counts as gone."""
        assert in_any_order(prometheus.query(ASKED)) == expected
        return True

    await eventually(answered)


async def test_the_operator_reads_there_what_the_pods_tell_themselves(
    prometheus: RealPrometheus,
) -> None:
    async with to_pods() as session:
        ask = http_query(session, prometheus.url)

        async def scraped() -> dict[str, Scraped]:
            status, body = await ask(ASKED)
            told = read(body, PODS, status=status)
            found = {name: each for name, each in told.items() if isinstance(each, Scraped)}
            assert found.keys() == PODS.keys() - {SAID}, told  # one may be late for a scrape
            return found

        told: dict[str, Scraped] = await eventually(scraped)
    for name, server in SERVERS.items():
        if name == SAID:  # by a pod of another namespace
            continue
        direct = parse(server.evidence(), revision=server.revision)
        assert isinstance(direct, Evidence)
        assert as_judged(told[name].evidence) == as_judged(direct)


def as_judged(told: Evidence) -> Any:
    """Return all that is judged: histograms as they are compared, and without what is told only."""
    shown = {
        name: (
            shadow.model_dump(exclude={"compute"}),
            shadow.compute.stable.whole(),
            shadow.compute.canary.whole(),
        )
        for name, shadow in told.shadow.items()
    }
    ours = told.model_dump(exclude={"status": True, "shadow": True, "latency": True})
    return ours, told.latency["request"].whole(), shown


async def test_what_it_refuses_is_told_in_its_words(prometheus: RealPrometheus) -> None:
    async with to_pods() as session:
        status, body = await http_query(session, prometheus.url)("yoloserve{")
    told = read(body, PODS, status=status)[PLAIN]
    assert isinstance(told, str)
    assert told.startswith("could not be looked up: Prometheus answers 400, invalid parameter")


async def test_what_becomes_of_a_pod_and_of_it_is_seen(tmp_path: Path) -> None:
    server = a_server(STABLE)
    told = {"/metrics": lambda: text(metrics(server))}
    [(name, labels), *_] = TARGETS
    with pages(told) as address:
        target = Target(address, labels=labels)
        with running(tmp_path, [target]) as prometheus:
            async with to_pods() as session:
                ask = http_query(session, prometheus.url)

                async def found() -> Scraped | str:
                    status, body = await ask(ASKED)
                    return read(body, PODS, status=status)[name]

                async def counted(images: int) -> bool:
                    now = await found()
                    return isinstance(now, Scraped) and now.evidence.images == images

                await eventually(partial(counted, 803))
                server.restart(at=server.started + 900.5)
                server.answers(5, circle=5)
                await eventually(partial(counted, 5))
                told.clear()

                async def gone() -> bool:
                    return "is not in Prometheus" in str(await found())

                await eventually(gone)
                prometheus.process.kill()
                prometheus.process.wait()
                with pytest.raises(aiohttp.ClientError):
                    await found()
