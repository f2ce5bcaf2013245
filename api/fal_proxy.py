"""fal's JavaScript client goes to fixed hosts, or through one URL that names the real one in a header: ``proxyUrl``.

``/fal/proxy`` is such a URL; what it names is looked up below ``/fal/queue`` and ``/fal/run`` instead.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import error_response
from fluxfarm.errors import InvalidField

PATH: Final = "/fal/proxy"
TARGET: Final = "x-fal-target-url"
_TARGET: Final = re.compile(r"https://([a-z.]+)(/[^?#]*)(?:\?([^#]*))?")
PLACES: Final = {"queue.fal.run": "/fal/queue", "fal.run": "/fal/run"}


class FalProxy:
    """Gives a call to the proxy the path that its header names, in place: the layers around it see the route, too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; any but a call to the proxy passes as it is."""
        if scope["type"] != "http" or scope["path"] != PATH:
            await self._app(scope, receive, send)
            return
        found = _TARGET.fullmatch(Headers(scope=scope).get(TARGET, ""))
        place = PLACES.get(found[1]) if found else None
        path = unquote(f"{place}{found[2]}") if found else ""
        if found is None or place is None or "\0" in path:
            message = f"{TARGET} must name {' or '.join(PLACES)}; send pictures as https URLs or data URIs."
            await error_response(InvalidField(message, param=TARGET), scope)(scope, receive, send)
            return
        scope["path"] = path
        scope["raw_path"] = f"{place}{found[2]}".encode("ascii", "replace")
        scope["query_string"] = (found[3] or "").encode("ascii", "replace")
        await self._app(scope, receive, send)
