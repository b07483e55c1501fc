"""Calls a route by its own declaration where a request gives none of its parameters.

FastAPI takes 0.2 ms to find that out, a third of what Python computes on the event loop. What it
would find, all defaults, stands in the signatures that it reads itself.
"""

from collections.abc import Callable, Coroutine
from inspect import signature
from typing import Any, get_type_hints

from fastapi import Request, params
from fastapi.routing import APIRoute
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from yoloserve.http.options import refuse_unknown_query

REQUEST = 0  # the first of what calls are given; then come their results, in order
Call = Callable[..., Coroutine[Any, Any, Any]]


class Declared:
    """What an endpoint, and what it depends on, may be given; and how to call them with nothing."""

    def __init__(self, endpoint: Call) -> None:
        queries: set[str] = set()
        headers: set[bytes] = set()
        self._places: dict[Call, int] = {}
        self._steps: list[tuple[Call, tuple[int, ...]]] = []
        self._read(endpoint, queries, headers)
        self.queries, self.headers = frozenset(queries), frozenset(headers)

    async def with_defaults(self, request: Request) -> Any:
        """Call the endpoint as FastAPI does for a request without parameters."""
        made: list[Any] = [request]
        for call, takes in self._steps:
            made.append(await call(*map(made.__getitem__, takes)))
        return made[-1]

    def _read(self, call: Call, queries: set[str], headers: set[bytes]) -> int:
        """Add a call after those that it depends on; return the place of its result."""
        if call in self._places:
            return self._places[call]
        takes: list[int] = []
        hints = get_type_hints(call, include_extras=True)
        for place, (name, parameter) in enumerate(signature(call).parameters.items()):
            hint = hints[name]
            metadata = getattr(hint, "__metadata__", ())
            needs = next((each for each in metadata if isinstance(each, params.Depends)), None)
            if isinstance(hint, type) and issubclass(hint, HTTPConnection):
                given = REQUEST
            elif needs and needs.dependency:
                given = self._read(needs.dependency, queries, headers)
            else:
                _note(call, name, metadata, queries, headers)
                if parameter.default is parameter.empty:
                    raise TypeError(f"{call.__name__}: {name} has no default")
                continue
            if place != len(takes):
                raise TypeError(f"{call.__name__}: {name} comes after what has a default")
            takes.append(given)
        self._steps.append((call, tuple(takes)))
        self._places[call] = len(self._steps)
        return len(self._steps)


def _note(
    call: Call, name: str, metadata: tuple[Any, ...], queries: set[str], headers: set[bytes]
) -> None:
    """Note under which name a request would give a parameter."""
    for each in metadata:
        if isinstance(each, params.Query):
            queries.add(each.alias or name)
            return
        if isinstance(each, params.Header):
            headers.add((each.alias or name.replace("_", "-")).lower().encode())
            return
    raise TypeError(f"{call.__name__}: {name} is neither in the query nor a header")


class DeclaredRoute(APIRoute):
    """A route that FastAPI reads only where there is something to read; unknown names are refused.

    Both ways read one declaration: what is added to it, here or in a dependency, is known to both.
    To be given to an application as it is: `include_router` would leave only FastAPI's way.
    """

    def __init__(self, path: str, endpoint: Call, **described: Any) -> None:
        super().__init__(path, endpoint, **described)
        read, declared = self.app, Declared(endpoint)

        async def called(scope: Scope, receive: Receive, send: Send) -> None:
            """Leave to FastAPI what has something to read."""
            if scope["query_string"]:
                refuse_unknown_query(scope["query_string"], declared.queries)
                await read(scope, receive, send)
            elif any(name in declared.headers for name, _ in scope["headers"]):
                await read(scope, receive, send)
            else:
                response = await declared.with_defaults(Request(scope, receive, send))
                await response(scope, receive, send)

        self.app = called
