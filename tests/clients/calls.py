"""What clients are shown to call, test by test, and the page that says so: ``python -m tests.clients.calls`` writes it.

A test names its call with ``client_call``; the fixture ``seen`` fails it unless the server really got that request.
"""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.conftest import ROOT

HERE: Final = Path(__file__).parent
PAGE: Final = ROOT / "docs" / "compatibility.md"
START: Final = "<!-- calls -->\n"
#: the name of a client to where its version is pinned
CLIENTS: Final = {
    "openai (Python)": ("constraints.txt", "openai"),
    "openai (Node)": ("tests/clients/node/package.json", "openai"),
    "replicate (Python)": ("constraints.txt", "replicate"),
    "replicate (Node)": ("tests/clients/node/package.json", "replicate"),
    "cloudflare (Python)": ("constraints.txt", "cloudflare"),
    "cloudflare (Node)": ("tests/clients/node/package.json", "cloudflare"),
    "fal_client (Python)": ("constraints.txt", "fal_client"),
    "@fal-ai/client (Node)": ("tests/clients/node/package.json", "@fal-ai/client"),
}


@dataclass(frozen=True, order=True)
class Call:
    """One call of a client as its user writes it, and the request that it makes."""

    client: str
    route: str  #: ``POST /v1/images/generations``; a part in braces is any part of a path
    call: str

    def matches(self, request: str) -> bool:
        """Whether ``METHOD /path`` is this route."""
        pattern = re.sub(r"\\\{\w+\\\}", ".+", re.escape(self.route))
        return re.fullmatch(f"{pattern}|{pattern.replace(' ', ' /openai', 1)}", request) is not None


CALLS: Final[set[Call]] = set()


def client_call(client: str, call: str, route: str) -> pytest.MarkDecorator:
    """Mark a test, or one case of it, as the proof of this call."""
    made = Call(client, route, call)
    assert client in CLIENTS, client
    CALLS.add(made)
    return pytest.mark.client_call(made)


def version(client: str) -> str:
    """The version that the tests run with."""
    file, name = CLIENTS[client]
    text = (ROOT / file).read_text(encoding="utf-8")
    if file.endswith(".json"):
        return str(json.loads(text)["dependencies"][name])
    return next(line.partition("==")[2] for line in text.splitlines() if line.startswith(f"{name}=="))


def table() -> str:
    """Every call of every test in this folder."""
    for path in sorted(HERE.glob("test_*.py")):
        importlib.import_module(f"tests.clients.{path.stem}")
    rows = ["| client | call | request |", "|---|---|---|"]
    rows += [f"| {one.client} {version(one.client)} | `{one.call}` | `{one.route}` |" for one in sorted(CALLS)]
    return "\n".join(rows) + "\n"


def main() -> None:
    """Write the table into the page."""
    before, _, _ = PAGE.read_text(encoding="utf-8").partition(START)
    PAGE.write_text(f"{before}{START}\n{table()}", encoding="utf-8")


if __name__ == "__main__":
    importlib.import_module("tests.clients.calls").main()
