"""The page of the fleet: what it tells, and to whom."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from yolofleet.api.addresses import without_credentials
from yolofleet.fleet.serving import application
from yolofleet.fleet.view import fleet

V1, V2 = ({"uri": f"https://me:hunter2@models/{n}.onnx?signature=hunter2"} for n in (1, 2))
APPROVAL = {"strategy": "Canary", "steps": [{"weight": 10, "hold": "Approval"}]}


def told(world: Any) -> Any:
    """Return what the page tells of the world's detector, as it arrives there."""
    (one,) = json.loads(json.dumps(fleet([world.raw])))
    return one


def test_a_detector_that_is_fine_is_told_with_its_revisions(world: Any) -> None:
    world.edit(model=V1)
    world.settle()
    stable = world.status().stable.revision
    assert told(world) == {
        "detector": "shop/gate",
        "state": "fine",
        "summary": "Serving, Released",
        "ready": "2/2",
        "url": "http://gate.shop.svc",
        "revisions": [
            {
                "name": stable,
                "role": "Stable",
                "model": "https://models/1.onnx",
                "ready": 2,
                "desired": 2,
                "weight": 100,
            }
        ],
    }


def test_a_release_that_waits_for_a_person_is_told_with_its_step_and_the_command(
    world: Any,
) -> None:
    world.edit(model=V1, rollout=APPROVAL)
    world.settle()
    world.edit(model=V2)
    world.settle()
    one = told(world)
    assert one["state"] == "waits"
    assert one["step"]["revision"] == world.status().rollout.revision
    assert (one["step"]["step"], one["step"]["of"], one["step"]["weight"]) == (1, 1, 10)
    assert one["why"][0]["reason"] == "AwaitingApproval"
    assert "kubectl patch yd gate" in one["why"][0]["message"]


def test_steps_are_counted_as_they_are_walked_and_not_as_the_spec_has_them(world: Any) -> None:
    """Who is judged and names none walks those that are usual; an older operator does not tell."""
    world.edit(model=V1, rollout={"strategy": "Canary", "analysis": {"mode": "DryRun"}})
    world.settle()
    world.edit(model=V2)
    for _ in range(4):  # some minutes of it in the dark
        world.reconcile()
        world.run_pods()
        world.now += timedelta(minutes=1)
    assert (told(world)["step"]["step"], told(world)["step"]["of"]) == (1, 4)
    del world.raw["status"]["rollout"]["steps"]
    assert (told(world)["step"]["step"], told(world)["step"]["of"]) == (1, 0)


def test_who_waits_for_replicas_to_be_judged_waits_for_a_person(world: Any) -> None:
    world.edit(model=V1, replicas=0, rollout={"strategy": "BlueGreen", "analysis": {}})
    world.settle()
    world.edit(model=V2)
    world.settle()
    assert told(world)["state"] == "waits"
    assert told(world)["summary"] == "ScaledToZero, NotJudged"


def test_who_wants_help_comes_first(world: Any) -> None:
    world.settle()
    fine = world.raw["status"]
    ready, released, progressing, stalled = (
        next(each for each in fine["conditions"] if each["type"] == kind)
        for kind in ("Ready", "Released", "Progressing", "Stalled")
    )

    def one(name: str, *conditions: Any) -> Any:
        status = {"observedGeneration": 1, "conditions": list(conditions)}
        return {**world.raw, "metadata": {**world.raw["metadata"], "name": name}, "status": status}

    no = {"status": "False"}
    moving = {**progressing, "status": "True", "reason": "RollingOut"}
    leaving = one("leaves", {**ready, **no}, progressing)
    leaving["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z"
    states = {
        each["detector"]: each["state"]
        for each in fleet(
            [
                one("fine", ready, released, progressing, stalled),
                leaving,
                one("unseen"),
                one("moves", ready, {**released, **no}, moving),
                one("waits", ready, {**released, **no}, {**progressing, "reason": "Paused"}),
                one("stalled", ready, {**stalled, "status": "True", "reason": "X"}),
                one("dead", {**ready, **no}, progressing),
            ]
        )
    }
    assert list(states.items()) == [
        ("shop/dead", "wrong"),
        ("shop/stalled", "wrong"),
        ("shop/waits", "waits"),
        ("shop/leaves", "moves"),
        ("shop/moves", "moves"),
        ("shop/unseen", "unseen"),
        ("shop/fine", "fine"),
    ]


def test_the_load_is_told_where_replicas_follow_it(world: Any) -> None:
    world.settle()
    world.raw["spec"]["autoscaling"] = {"maxReplicas": 9}
    scaling = {"provider": "builtin", "floor": 5, "demand": 4.2, "reason": "20 in flight, 4 each"}
    world.raw["status"]["autoscaling"] = scaling
    assert told(world)["load"] == {**scaling, "max": 9}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://b/k.onnx", "s3://b/k.onnx"),
        ("at https://me:pw@h/x?sig=1&b=2, and then", "at https://h/x, and then"),
        ("(https://token@h/x)", "(https://h/x)"),
        ("why? a@b.example", "why? a@b.example"),
        ("(https://h/x?a=1,s3;cr)et&b=2).", "(https://h/x)."),
        ("https://me:hun/t@r2@h/x", "https://h/x"),
        ("https://me:p?w@h/x", "https://h/x"),
        ("https://me:20240101/pw@h/x", "https://h/x"),
        ("https://me:2024/x@h/x", "https://me:2024/x@h/x"),  # a host and its port, to all clients
        ("https://me:p/a?b@h/x?c", "https://h/x"),
        ("s3://KEY:/ab@minio:9000/m?x", "s3://minio:9000/m"),
        ("https://h/a@b/x?sig=1", "https://h/a@b/x"),
        ("https://h/x?a@b=sig", "https://h/x"),
        ("'https://me:it's@h/x'", "'https://h/x'"),
        ('https://me:pa"ss@h/x', "https://h/x"),
        ("https://h/x?sig=abc'SECRET", "https://h/x"),
        ("oci://reg:5000/gate@sha256:0a1b", "oci://reg:5000/gate@sha256:0a1b"),
        ("oci://[::1]:5000/gate@sha256:0a1b", "oci://[::1]:5000/gate@sha256:0a1b"),
    ],
)
def test_addresses_are_shown_without_credentials(text: str, shown: str) -> None:
    assert without_credentials(text) == shown


def test_no_value_of_the_spec_and_no_secret_of_an_address_is_told(world: Any) -> None:
    container = {"name": "yoloserve", "env": [{"name": "TOKEN", "value": "hunter2"}]}
    world.edit(model=V1, podTemplate={"spec": {"containers": [container]}})
    world.settle()
    failing = {"type": "Odd", "status": "False", "reason": "Odd", "message": f"{V1['uri']} failed"}
    world.raw["status"]["conditions"].append(failing)
    text = json.dumps(told(world))
    assert "https://models/1.onnx failed" in text
    assert "hunter2" not in text
    assert "TOKEN" not in text


# over HTTP


class Cache:
    """What the operator knows. asked: how often it was asked for it."""

    def __init__(self) -> None:
        self.known: Any = {"detectors": [{"detector": "shop/gate"}], "doubt": ""}
        self.asked = 0

    def __call__(self) -> Any:
        self.asked += 1
        return self.known


@pytest.fixture
def cache() -> Cache:
    return Cache()


@pytest.fixture
async def page(cache: Cache) -> AsyncIterator[TestClient[Any, Any]]:
    async with TestClient(TestServer(application(cache))) as client:
        yield client


async def test_the_page_and_its_parts_are_there_and_nothing_else(page: Any) -> None:
    for path, kind in (
        ("/", "text/html"),
        ("/page.css", "text/css"),
        ("/page.js", "text/javascript"),
        ("/icon.svg", "image/svg+xml"),
        ("/fleet.json", "application/json"),
    ):
        answer = await page.get(path)
        assert (answer.status, answer.content_type) == (200, kind)
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert not answer.cookies
    assert (await page.get("/debug/detectors")).status == 404
    assert (await page.post("/fleet.json", json={})).status == 405


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8083", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:8083", 200),
        ("[::1]", 200),
        ("evil.example:8083", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example:8083", 403),
        ("evil.example:localhost", 403),
        ("", 403),
        ("10.0.0.7:8083", 403),
    ],
)
async def test_a_name_that_was_bent_to_loopback_is_not_answered(
    page: Any, host: str, status: int
) -> None:
    answer = await page.get("/fleet.json", headers={"Host": host})
    assert answer.status == status
    assert ("shop/gate" in await answer.text()) == (status == 200)


async def test_many_screens_cost_one_look_and_who_has_it_already_gets_none(
    page: Any, cache: Cache
) -> None:
    first = await page.get("/fleet.json")
    again = await page.get("/fleet.json", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status, await again.read()) == (304, b"")
    assert cache.asked == 1


async def test_before_the_first_lists_are_complete_nothing_is_shown_as_the_whole(
    page: Any, cache: Cache
) -> None:
    cache.known = None
    assert (await page.get("/fleet.json")).status == 503
    cache.known = {"detectors": [], "doubt": ""}
    assert await (await page.get("/fleet.json")).json() == cache.known
