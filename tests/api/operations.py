"""Every call of the API, out of its own description, so that no new one is forgotten by the tables."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from fastapi import FastAPI
from starlette.testclient import TestClient

PARAMETER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Operation:
    """One method of one path."""

    method: str
    template: str
    described: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.method} {self.template}"

    @property
    def parameters(self) -> list[str]:
        """The names in the path."""
        return PARAMETER.findall(self.template)

    @property
    def scope(self) -> str | None:
        """What a key needs; None: the call takes no key."""
        security = self.described.get("security")
        return None if not security else str(security[0]["bearer"][0])

    @property
    def bodies(self) -> dict[str, dict[str, Any]]:
        """The content types that it takes."""
        found: dict[str, dict[str, Any]] = self.described.get("requestBody", {}).get("content", {})
        return found

    @property
    def statuses(self) -> set[int]:
        return {int(status) for status in self.described["responses"]}

    def named(self, place: str) -> list[str]:
        """The names in its ``path`` or ``query``."""
        return [one["name"] for one in self.described.get("parameters", []) if one["in"] == place]

    def path(self, value: Callable[[str], str] | None = None) -> str:
        """A path with ``value(name)`` in each place, or with what nobody has."""
        return PARAMETER.sub(lambda found: (value or self._nobodys)(found[1]), self.template)

    def path_but(self, name: str, value: str) -> str:
        """The path with ``value`` in the place of one name."""
        return self.path(lambda other: value if other == name else self._nobodys(other))

    def _nobodys(self, name: str) -> str:
        schema = next(one["schema"] for one in self.described["parameters"] if one["name"] == name)
        return "0" if schema.get("type") == "integer" else str(uuid4())

    def call(self, client: TestClient, path: str | None = None, **more: Any) -> Any:
        """Sent with an empty body of a kind that the call takes, unless ``more`` has another."""
        more.setdefault("follow_redirects", False)
        if "application/json" in self.bodies and not more.keys() & {"json", "content"}:
            more["json"] = {}
        elif "multipart/form-data" in self.bodies and not more.keys() & {"files", "content"}:
            more["files"] = {"file": b""}
        return client.request(self.method, path or self.path(), **more)


def operations(app: FastAPI) -> list[Operation]:
    """All of them."""
    return [
        Operation(method.upper(), template, described)
        for template, calls in app.openapi()["paths"].items()
        for method, described in calls.items()
    ]
