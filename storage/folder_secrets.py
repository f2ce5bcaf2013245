"""Secrets that nobody had to choose: made once, kept in the data folder, the same for every process that shares it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from fluxfarm.errors import StoreUnavailable


def kept_secret(path: Path) -> str:
    """The secret in this file, made on first use; processes that start together agree on one.

    Raises:
        StoreUnavailable: the data folder cannot be used.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _make_secret(path)
        return path.read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        raise StoreUnavailable(
            f"The {path.stem} secret of the data folder cannot be read ({type(error).__name__})."
        ) from error


def _make_secret(path: Path) -> None:
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(fresh)
    except FileExistsError:
        pass  # another process was first: its secret counts
    finally:
        fresh.unlink(missing_ok=True)
