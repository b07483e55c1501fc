"""The webhook's server: what is not asked properly is refused; certificates may change."""

import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from yolofleet import webhook
from yolofleet.api.base import MOST_PROBLEMS
from yolofleet.cluster import kinds
from yolofleet.cluster.cache import Cache
from yolofleet.plan.defaults import Defaults
from yolofleet.plan.powers import Power
from yolofleet.webhook import PATH, BadCertificate, Certificate


def certify(folder: Path, name: str) -> None:
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", folder / "tls.key", "-out", folder / "tls.crt"),
        ],
        check=True,
        capture_output=True,
    )


def a_review(**changes: Any) -> dict[str, Any]:
    detector = {
        "metadata": {"name": "gate", "namespace": "shop", "uid": "u", "resourceVersion": "1"},
        "spec": {"model": {"uri": "demo://shapes"}},
    }
    request = {"uid": "r-1", "kind": {"kind": "YoloDetector"}, "namespace": "shop"}
    return {"request": request | {"object": detector, "oldObject": None} | changes}


class Server:
    def __init__(self, folder: Path) -> None:
        self.folder, self.reads = folder, list[bool]()
        self.certificate = Certificate(folder, self.reads.append)
        self.cache, self.warm = Cache(), True
        self.defaults = Defaults("cpu", "torch", "gpu", forbidden=frozenset({Power.SECRETS}))
        self.url = ""

    async def ask(self, path: str, content: Any) -> tuple[int, Any]:
        trust = ssl.create_default_context(cafile=str(self.folder / "tls.crt"))
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.url + path, ssl=trust, data=orjson.dumps(content)) as answer,
        ):
            text = await answer.text()
            return answer.status, await answer.json() if answer.status == 200 else text


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    certify(tmp_path, "first")
    one = Server(tmp_path)
    runner = await webhook.serve(one.cache, lambda: one.warm, one.certificate, 0, one.defaults)
    [port] = [address[1] for address in runner.addresses if len(address) == 2]  # of IPv4
    one.url = f"https://127.0.0.1:{port}"
    yield one
    await runner.cleanup()


async def test_a_sound_detector_is_allowed(server: Server) -> None:
    status, review = await server.ask(PATH, a_review())
    assert status == 200
    assert review["response"] == {"uid": "r-1", "allowed": True}


async def test_a_claim_of_another_in_the_cache_counts(server: Server) -> None:
    traffic = {"hosts": ["gate.example.com"], "gateways": ["istio-system/public"]}
    mine = a_review()
    mine["request"]["object"]["spec"]["traffic"] = traffic
    other = {
        "metadata": {"name": "door", "namespace": "yard", "uid": "o", "resourceVersion": "1"},
        "spec": {"traffic": traffic},
    }
    assert (await server.ask(PATH, mine))[1]["response"]["allowed"] is True
    server.cache.put(kinds.DETECTOR, other)
    response = (await server.ask(PATH, mine))[1]["response"]
    assert response["allowed"] is False
    assert response["status"]["code"] == 422
    assert "yard/door" in response["status"]["message"]


async def test_a_name_that_a_child_of_another_has_is_found_in_the_cache(server: Server) -> None:
    labels = {"yolofleet.io/detector": "door"}
    metadata = {"name": "gate", "namespace": "shop", "uid": "s", "resourceVersion": "1"}
    server.cache.put(kinds.SERVICE, {"metadata": metadata | {"labels": labels}, "spec": {}})
    response = (await server.ask(PATH, a_review()))[1]["response"]
    assert "belongs to the detector door" in response["status"]["message"]


@pytest.mark.parametrize("levels", [60, 300, 1_500])
async def test_what_is_nested_too_deep_is_refused_in_words(server: Server, levels: int) -> None:
    review = a_review()
    affinity = orjson.Fragment(b'{"a":' * levels + b"1" + b"}" * levels)
    review["request"]["object"]["spec"]["podTemplate"] = {"spec": {"affinity": affinity}}
    response = (await server.ask(PATH, review))[1]["response"]
    assert response["allowed"] is False
    assert "podTemplate: is nested in more than 50 levels" in response["status"]["message"]


async def test_an_answer_tells_the_first_of_many(server: Server) -> None:
    """Nobody reads more, and the API server passes a few kilobytes on."""
    ports = [{"containerPort": n, "hostPort": n} for n in range(1, 2_000)]
    env = [{"name": f"{n}", "valueFrom": {"secretKeyRef": {"name": "s"}}} for n in range(2_000)]
    warned, refused = a_review(), a_review()
    for review, fields in ((warned, {"ports": ports}), (refused, {"env": env})):
        pod = {"containers": [{"name": "side", "image": "side:1", **fields}]}
        review["request"]["object"]["spec"]["podTemplate"] = {"spec": pod}
    warnings = (await server.ask(PATH, warned))[1]["response"]["warnings"]
    assert len(warnings) == MOST_PROBLEMS + 1
    message = (await server.ask(PATH, refused))[1]["response"]["status"]["message"]
    assert message.count("forbids secrets") == MOST_PROBLEMS


@pytest.mark.parametrize("path", ["/", "/validate", PATH + "y", "/healthz"])
async def test_an_unknown_path_refuses(server: Server, path: str) -> None:
    _, review = await server.ask(path, a_review())
    assert review["response"]["allowed"] is False
    assert "is no path of this webhook" in review["response"]["status"]["message"]


@pytest.mark.parametrize(
    "content", [{}, {"request": None}, {"request": {"uid": "1"}}, [], "review", 7]
)
async def test_what_is_no_review_is_no_answer(server: Server, content: Any) -> None:
    status, text = await server.ask(PATH, content)
    assert status == 400
    assert "not an AdmissionReview" in text


@pytest.mark.parametrize("wrong", [{"object": None}, {"kind": {"kind": "Pod"}}])
async def test_other_objects_are_refused(server: Server, wrong: dict[str, Any]) -> None:
    response = (await server.ask(PATH, a_review(**wrong)))[1]["response"]
    assert response["allowed"] is False


async def test_nothing_is_allowed_before_the_others_are_known(server: Server) -> None:
    server.warm = False
    response = (await server.ask(PATH, a_review()))[1]["response"]
    assert response["allowed"] is False
    assert "try again" in response["status"]["message"]
    leaving = a_review()
    leaving["request"]["object"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    response = (await server.ask(PATH, leaving))[1]["response"]
    assert response["allowed"] is True, "it waits for nobody"


async def test_a_new_certificate_is_used_for_new_connections(server: Server) -> None:
    certify(server.folder, "second")
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await server.ask(PATH, a_review())
    server.certificate.read()
    assert (await server.ask(PATH, a_review()))[0] == 200
    server.certificate.read()
    assert server.reads == [True, True], "unchanged files are not counted"


async def test_a_bad_certificate_leaves_the_old_one_in_use(server: Server) -> None:
    good = (server.folder / "tls.crt").read_bytes()
    (server.folder / "tls.crt").write_text("half a certificate")
    with pytest.raises(BadCertificate, match="no usable"):
        server.certificate.read()
    (server.folder / "tls.crt").write_bytes(good)
    assert (await server.ask(PATH, a_review()))[0] == 200
    assert server.reads == [True, False]


def test_without_a_certificate_it_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(BadCertificate, match=str(tmp_path)):
        Certificate(tmp_path)
