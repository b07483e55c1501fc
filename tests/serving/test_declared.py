"""The two ways into a route, by its defaults and by FastAPI, are one declaration read twice."""

from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Body, Depends, FastAPI, Header, Query, Request
from fastapi.routing import APIRoute
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse

from yoloserve.http import options
from yoloserve.http.declared import Declared, DeclaredRoute
from yoloserve.http.routes import detect

asked: list[str] = []


async def who(_: HTTPConnection, x_camera_id: Annotated[str, Header()] = "nobody") -> str:
    asked.append("who")
    return x_camera_id


Who = Annotated[str, Depends(who)]


async def greeting(_: Request, name: Who, loud: Annotated[bool, Query()] = False) -> str:
    return name.upper() if loud else name


async def endpoint(
    request: Request,
    name: Who,
    greeted: Annotated[str, Depends(greeting)],
    times: Annotated[int, Query(alias="n")] = 1,
) -> JSONResponse:
    return JSONResponse([request.url.path, name, [greeted] * times])


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", {}),
        ("?n=2", {}),
        ("?loud=true", {}),
        ("", {"X-Camera-Id": "gate"}),
        ("?n=3&loud=1", {"X-Camera-Id": "gate"}),
    ],
)
async def test_both_ways_give_the_same_answer(query: str, headers: dict[str, str]) -> None:
    answers: list[Any] = []
    for kind in (APIRoute, DeclaredRoute):
        router = APIRouter(route_class=kind)
        router.get("/hello")(endpoint)
        transport = httpx.ASGITransport(FastAPI(routes=router.routes))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            asked.clear()
            answers.append((await client.get(f"/hello{query}", headers=headers)).json())
            assert asked == ["who"]  # once, though two depend on it
    assert answers[0] == answers[1]


def test_what_a_request_may_give_is_what_is_declared() -> None:
    declared = Declared(endpoint)
    assert declared.queries == {"n", "loud"}
    assert declared.headers == {b"x-camera-id"}
    for route in (detect.detect, detect.detect_batch):
        assert Declared(route).queries == options.OPTIONS
        assert Declared(route).headers == {b"x-deadline-ms", b"x-camera-id"}


async def needs_a_name(name: Annotated[str, Query()]) -> None: ...


async def takes_a_body(body: Annotated[str, Body()] = "") -> None: ...


async def out_of_order(
    n: Annotated[int, Query()] = 1, *, name: Annotated[str, Depends(who)]
) -> None: ...


@pytest.mark.parametrize("wrong", [needs_a_name, takes_a_body, out_of_order])
def test_what_cannot_be_called_with_defaults_is_refused_at_import(wrong: Any) -> None:
    with pytest.raises(TypeError, match=wrong.__name__):
        Declared(wrong)
