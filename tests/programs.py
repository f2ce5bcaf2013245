"""Programs that a test needs and pip alone does not bring: kubectl, promtool, npm, chromium, S3 servers, RabbitMQ."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

INSTALL: Final = ("npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--silent")


def needed(name: str, comes_with: str) -> str:
    """Its path. Where it is missing, a test fails under ``CI`` and is skipped elsewhere; both say how to get it."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is not None:
        return found
    reason = f"{name} is not here; it comes with {comes_with}"
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def node_modules(folder: Path) -> Path:
    """The packages that ``package.json`` in the folder names; one process installs them, the others wait."""
    needed("npm", "Node: Debian's nodejs and npm")
    found, wanted = folder / "node_modules", (folder / "package.json").read_text(encoding="utf-8")
    mark = found / ".wanted"
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not mark.is_file() or mark.read_text(encoding="utf-8") != wanted:
            subprocess.run(INSTALL, cwd=folder, check=True, timeout=100)
            mark.write_text(wanted, encoding="utf-8")
    return found
