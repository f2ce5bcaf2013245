"""The straight way into a route: the calls that come most go past FastAPI's own reading of parameters.

FastAPI solves every dependency of a route anew for each call, which takes a quarter of what a poll costs. A route may
name a function that reads a plain call by hand: the same dependencies, one after the other. Whatever carries more is
read by FastAPI, and the description of the API knows nothing of all this.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

from fastapi import Request, Response
from fastapi.routing import APIRoute

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
#: answers a plain call; None, before anything was read or counted: it is not plain
Way = Callable[[Request], Awaitable[Response | None]]

_WAYS: Final[dict[Callable[..., Any], Way]] = {}


def goes_straight(way: Way) -> Callable[[Endpoint], Endpoint]:
    """Below the route's own decorator: plain calls are answered by ``way``."""

    def note(endpoint: Endpoint) -> Endpoint:
        _WAYS[endpoint] = way
        return endpoint

    return note


class StraightRoute(APIRoute):
    """The ``route_class`` of a router with such routes."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, with the straight way before it."""
        usual = super().get_route_handler()
        way = _WAYS.get(self.endpoint)
        if way is None:
            return usual

        async def handle(request: Request) -> Response:
            answer = await way(request)
            return await usual(request) if answer is None else answer

        return handle
