"""Counters by way of Prometheus: the same evidence, or words; never the same scrape twice."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from played_pods import CANARY, STABLE, Server
from played_prometheus import Prometheus, Series, metrics
from yolofleet.analysis.evidence import Evidence, parse
from yolofleet.analysis.increments import Memory, Pod, is_repeated, look
from yolofleet.analysis.prometheus import MOST_BYTES, Scraped, query, read

POD = "gate-05bb7f85-abc"
PODS = {POD: STABLE}
QUERY = query(PODS, namespace="shop", canary=CANARY)
TARGET = {"namespace": "shop", "pod": POD, "job": "gate", "instance": "10.0.0.1:8080"}


def a_server() -> Server:
    server = Server("s1", STABLE, capacity=41.5)
    server.golden = {"state": "done", "map50": 0.93, "set_sha256": "ab" * 32, "images": 20}
    server.answers(800, ms=21, circle=1200, square=77)
    server.answers(3, ms=1e6)
    server.requests["overloaded"] = 3
    server.frame(700, blind=2, failed=1)
    server.pair("circle", 900, 880, size=0, added=5)
    server.pair("", 30, 20, size=2)
    server.confused = {"circle": {"square": 4}}
    server.only_stable["cross"], server.only_canary["star"] = 7, 3
    server.compute["canary"][30] = 700
    server.compute["stable"][29] = 700
    return server


def looked_up(prometheus: Prometheus, pods: dict[str, str] = PODS) -> Scraped | str:
    asked = query(pods, namespace="shop", canary=CANARY)
    return read(prometheus.answer(asked), pods)[next(iter(pods))]


def scraped(told: list[Series], **target: str) -> Scraped | str:
    prometheus = Prometheus()
    prometheus.scrape(told, **(TARGET | target))
    return looked_up(prometheus)


def as_judged(told: Evidence) -> Any:
    """Return all that is judged: histograms as they are compared, and without what is told only."""
    ours = told.model_dump(exclude={"status": True, "shadow": True, "latency": True})
    shown = {
        name: (
            shadow.model_dump(exclude={"compute"}),
            shadow.compute.stable.whole(),
            shadow.compute.canary.whole(),
        )
        for name, shadow in told.shadow.items()
    }
    return ours, told.latency["request"].whole(), shown


def test_it_is_the_same_evidence_as_the_pods_own():
    server = a_server()
    direct, found = parse(server.evidence(), revision=STABLE), scraped(metrics(server))
    assert isinstance(direct, Evidence)
    assert isinstance(found, Scraped)
    assert as_judged(found.evidence) == as_judged(direct)


def test_labels_that_prometheus_gave_way_to_are_found():
    told = metrics(a_server())
    # its times are asked for by that label, which is not there then
    told = [each for each in told if not each[0].startswith("yoloserve_latency")]
    answer = scraped(told, **{"source": "x", "class": "gpu", "revision": "3", "canary_": "no"})
    assert isinstance(answer, str)
    assert "yoloserve_latency_seconds_bucket" in answer


@pytest.mark.parametrize("alone", [False, True])
def test_what_a_pod_of_another_namespace_says_of_this_one_is_not_read(alone: bool):
    """Prometheus moves the labels that it says of itself to `exported_`, and its own stay."""
    bad, liar = a_server(), a_server()
    bad.requests["internal"], liar.started = 990, bad.started + 1
    prometheus = Prometheus()
    if not alone:
        prometheus.scrape(metrics(bad), **TARGET)
    said = [(name, {**own, "namespace": "shop", "pod": POD}, n) for name, own, n in metrics(liar)]
    prometheus.scrape(said, namespace="evil", pod="own-1", job="evil/own")
    found = looked_up(prometheus)
    if alone:
        assert "which any pod can say of itself" in str(found)
        return
    assert isinstance(found, Scraped)
    assert found.evidence.of_requests()["internal"] == 990


def without(*names: str) -> list[Series]:
    return [each for each in metrics(a_server()) if not each[0].startswith(names)]


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ([], "not in Prometheus"),
        (without("process_start_time_seconds"), "tells no process_start_time_seconds"),
        (without("yoloserve_model_info"), "tells no yoloserve_model_info"),
        (without("yoloserve_requests"), "older server"),
        (without("yoloserve_latency"), "has not all buckets of yoloserve_latency_seconds"),
        (without("yoloserve_shadow_compute"), "has not all buckets of yoloserve_shadow_compute"),
        (
            [*without(), ("yoloserve_detections_total", {"class": "x"}, float("nan"))],
            "counts nan",
        ),
        ([*without(), ("yoloserve_detections_total", {"class": "x"}, -1.0)], "counts -1.0"),
        ([*without(), ("yoloserve_shadow_seen_total", {"canary": CANARY}, 0.5)], "counts 0.5"),
        (metrics(Server("x", CANARY)), f"says that it is of '{CANARY}', not of {STABLE}"),
        (
            [
                (name, own, value) if own.get("le") != "0.001" else (name, own, 2**40)
                for name, own, value in without()
            ],
            "of different times",
        ),
    ],
)
def test_what_is_missing_or_wrong_is_told_in_words(told: list[Series], words: str):
    found = scraped(told)
    assert isinstance(found, str)
    assert words in found
    assert len(found) <= 140


def test_a_server_that_does_not_tell_how_often_it_was_blind_in_a_row_did_not_tell_that_it_sees():
    found = scraped(without("yoloserve_probe_blind_in_a_row", "yoloserve_golden"))
    assert isinstance(found, Scraped)
    assert (found.evidence.probe, found.evidence.golden) == (None, None)


def test_a_set_that_cannot_be_used_is_told_as_such():
    server = a_server()
    server.golden = {"state": "failed"}
    found = scraped(metrics(server))
    assert isinstance(found, Scraped)
    assert found.evidence.golden
    assert (found.evidence.golden.state, found.evidence.golden.map50) == ("failed", None)


def test_labels_that_a_relabelling_lost_are_named():
    prometheus = Prometheus()
    prometheus.scrape(metrics(a_server()), job="gate", kubernetes_pod_name=POD)
    assert str(looked_up(prometheus)).endswith("without the labels `namespace` and `pod`")


@pytest.mark.parametrize(
    "target", [{"namespace": "monitoring", "pod": "prometheus-0"}, {"instance": "prom:9090"}]
)
def test_what_a_federation_made_of_the_labels_is_told(target: dict[str, str]):
    own = {"namespace": "shop", "pod": POD}
    told = [(name, labels | own, n) for name, labels, n in metrics(a_server())]
    prometheus = Prometheus()
    prometheus.scrape(
        [
            (n, {f"exported_{k}" if k in own else k: v for k, v in labels.items()}, value)
            for n, labels, value in told
        ],
        job="federate",
        **target,
    )
    found = str(looked_up(prometheus))
    assert "a job that federates needs honor_labels" in found
    assert len(found) <= 140


def test_who_says_it_of_many_series_fills_no_answer():
    said = {"exported_namespace": "shop", "exported_pod": POD}
    prometheus = Prometheus()
    prometheus.scrape(
        [("yoloserve_model_info", said | {"n": str(n)}, 1.0) for n in range(1_000)],
        namespace="evil",
        pod="own-1",
    )
    assert len(prometheus.vector(QUERY)) == 1


def test_what_was_scraped_long_ago_is_not_read():
    prometheus = Prometheus()
    prometheus.scrape(metrics(a_server()), **TARGET)
    prometheus.now += 119
    assert isinstance(looked_up(prometheus), Scraped)
    prometheus.now += 2
    assert "was last scraped 121 s ago" in str(looked_up(prometheus))


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (
            401,
            b"Unauthorized",
            "Prometheus answers 401, which is about who asks: see prometheus.token",
        ),
        (403, b'{"error": "no"}', "see prometheus.tokenSecret in the operator's chart"),
        (302, b"", "answers 302"),
        (200, b"<html><body>Sign in</body></html>", "answers 200, not as its API does"),
        (200, b"[]", "not as its API does"),
        (200, b'{"status":"success","data":{"resultType":"matrix","result":[]}}', "not as its API"),
        (422, b'{"status":"error","error":"query timed out"}', "answers 422, query timed out"),
        (200, b" " * (MOST_BYTES + 1), "more than 16 MiB"),
    ],
)
def test_a_prometheus_that_gives_no_vector_is_told_for_each_pod(status, body, words):
    told = read(body, PODS | {"b": CANARY}, status=status)
    assert set(told) == {POD, "b"}
    for each in told.values():
        assert isinstance(each, str)
        assert each.startswith("could not be looked up: ")
        assert words in each
        assert len(each) <= 140


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=9) | st.sampled_from(["1", "NaN"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["metric", "value", "__name__", "pod", "namespace", "le", "x"]), inner
        )
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("label", ["le", "revision", "pod", "source"])
@pytest.mark.parametrize("value", [None, 5, ["a"], {}])
def test_a_label_that_is_no_text_is_none(label: str, value: Any):
    prometheus = Prometheus()
    prometheus.scrape(metrics(a_server()), **TARGET)
    result = prometheus.vector(QUERY)
    for series in result:
        if label in series["metric"]:
            series["metric"][label] = value
    body = json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}})
    assert isinstance(read(body.encode(), PODS)[POD], str)


@given(st.lists(JSON, max_size=4), st.data())
@settings(max_examples=40, deadline=None)
def test_nothing_that_is_answered_raises(extra: list[Any], data: st.DataObject):
    prometheus = Prometheus()
    prometheus.scrape(metrics(a_server()), **TARGET)
    result = [*prometheus.vector(QUERY), *extra]
    spoilt = data.draw(st.integers(0, len(result) - 1))
    part = data.draw(st.sampled_from(["metric", "value"]))
    if isinstance(result[spoilt], dict):
        result[spoilt] = {**result[spoilt], part: data.draw(JSON)}
    body = json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}})
    assert set(read(body.encode(), PODS)) == {POD}
    assert set(read(json.dumps(extra).encode(), PODS)) == {POD}


def test_names_are_asked_for_as_they_are():
    asked = query({"gate.a-1": STABLE, "b": CANARY}, namespace="shop", canary=CANARY)
    assert 'pod=~"b|gate[.]a-1"' in asked
    assert len(query({f"gate-05bb7f85-{n:05}": STABLE for n in range(100)}, namespace="shop",
                     canary=CANARY)) < 32_000  # fmt: skip


class Scraping:
    """Two pods, scraped by one or two Prometheus, and looked at by way of them."""

    def __init__(self) -> None:
        self.stable, self.canary = Server("s", STABLE), Server("c", CANARY)
        self.prometheus = Prometheus()
        self.memory = Memory()
        self.compared: list[int] = []

    def scrape(self, server: Server, replica: str = "a") -> None:
        target = {"namespace": "shop", "pod": server.uid, "replica": replica}
        self.prometheus.scrape(metrics(server), **target)

    def look(self) -> bool:
        """Look, and say whether there was anything new."""
        names = {"s": STABLE, "c": CANARY}
        told = read(self.prometheus.answer(query(names, namespace="shop", canary=CANARY)), names)
        pods = [
            Pod(n, names[n], True, t.evidence, scrape=t.scrape)
            if isinstance(t, Scraped)
            else Pod(n, names[n], True, t)
            for n, t in told.items()
        ]
        if is_repeated(self.memory, pods):
            return False
        self.memory, seen = look(self.memory, pods, canary=CANARY, stable=STABLE)
        self.compared.append(seen.pairs.compared)
        return True

    def serve(self, frames: int = 10, seconds: float = 15) -> None:
        self.stable.frame(frames)
        self.stable.compute["canary"][30] += frames
        self.stable.compute["stable"][30] += frames
        self.prometheus.now += seconds


def both(played: Scraping, replica: str = "a") -> None:
    played.scrape(played.stable, replica)
    played.scrape(played.canary, replica)


def test_the_same_scrape_is_one_look_however_often_it_is_seen():
    played = Scraping()
    both(played)
    assert [played.look() for _ in range(3)] == [True, False, False]
    for _ in range(2):
        played.serve()
        both(played)
        assert [played.look() for _ in range(3)] == [True, False, False]
    assert played.compared == [0, 10, 10]


def test_a_look_waits_until_all_pods_were_scraped_again():
    played = Scraping()
    both(played)
    played.look()
    played.serve()
    played.scrape(played.stable)
    assert not played.look()
    played.prometheus.now += 5
    played.scrape(played.canary)
    assert played.look()
    assert played.compared == [0, 10]


def test_a_pod_that_is_scraped_no_more_holds_up_the_others_for_two_minutes_at_most():
    played = Scraping()
    both(played)
    played.look()
    for _ in range(8):
        played.serve()
        played.scrape(played.stable)
        assert not played.look()
    played.serve()
    played.scrape(played.stable)
    assert played.look(), "it is told that the pod cannot be read"


@pytest.mark.parametrize("behind", ["a", "b"])
def test_two_prometheus_count_nothing_twice(behind: str):
    ahead = "b" if behind == "a" else "a"
    played = Scraping()
    both(played, "a")
    both(played, "b")
    played.look()
    played.serve()
    both(played, ahead)
    assert played.look()
    for series in list(played.prometheus.scrapes):  # the one that is ahead goes away
        if ("replica", ahead) in series:
            del played.prometheus.scrapes[series]
    assert not played.look(), "what the other one knows is older"
    played.serve()
    both(played, behind)
    assert played.look()
    assert played.compared == [0, 10, 10]


def test_counters_of_a_pod_that_restarted_begin_anew():
    played = Scraping()
    both(played)
    played.look()
    played.serve(30)
    both(played)
    played.look()
    played.stable.restart(2000)
    played.serve(7)
    both(played)
    assert played.look()
    assert played.compared == [0, 30, 7]
