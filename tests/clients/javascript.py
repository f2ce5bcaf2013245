"""Scripts of Node with the official JavaScript clients, each in a process of its own."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path
from typing import Any, Final

from tests.api.samples import picture
from tests.clients.conftest import Place
from tests.making import MODEL
from tests.programs import node_modules

FOLDER: Final = Path(__file__).parent / "node"


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
        ["node", script],
        cwd=node_modules(FOLDER).parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found
