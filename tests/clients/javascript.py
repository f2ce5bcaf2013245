"""Scripts of Node with the official JavaScript clients, each in a process of its own."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from tests.api.samples import picture
from tests.clients.conftest import Place
from tests.making import MODEL

FOLDER: Final = Path(__file__).parent / "node"
INSTALL: Final = ("npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--silent")


def installed() -> Path:
    """The folder with the clients of ``package.json`` in it; one process installs, the others wait."""
    if shutil.which("npm") is None:
        assert "CI" not in os.environ, "CI needs Node for the JavaScript clients"
        pytest.skip("there is no npm here: the JavaScript clients are not tried")
    mark, wanted = FOLDER / "node_modules" / ".wanted", (FOLDER / "package.json").read_text(encoding="utf-8")
    with (FOLDER / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not mark.is_file() or mark.read_text(encoding="utf-8") != wanted:
            subprocess.run(INSTALL, cwd=FOLDER, check=True, timeout=100)
            mark.write_text(wanted, encoding="utf-8")
    return FOLDER


def run(script: str, place: Place) -> dict[str, Any]:
    """What the script said, as JSON, of a farm."""
    environment = {
        "PATH": os.environ["PATH"],
        "FARM_URL": place.url,
        "FARM_KEY": place.key,
        "MODEL": MODEL,
        "PICTURE": base64.b64encode(picture()).decode(),
    }
    done = subprocess.run(
        ["node", script], cwd=installed(), env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found
