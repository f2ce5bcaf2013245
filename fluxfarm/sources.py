"""Where the weights of a model come from: a folder, or a hub id with a pinned revision."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fluxfarm.errors import InvalidField

REVISION: Final = re.compile(r"[0-9a-f]{40}")
HUB_ID: Final = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class ModelSource:
    """One model that this farm renders itself; no folder and no hub id means that the farm builds it."""

    slug: str
    folder: Path | None = None
    hub_id: str | None = None
    revision: str | None = None

    @property
    def is_built_here(self) -> bool:
        """True for the small models, which the farm makes on first use."""
        return self.folder is None and self.hub_id is None


def parse_source(text: str) -> ModelSource:
    """Read ``slug``, ``slug=/folder`` or ``slug=hub/id@<40 hex digits>``.

    Raises:
        InvalidField: a hub id without a full commit hash; a branch name could change under a running farm.
    """
    slug, _, place = (part.strip() for part in text.partition("="))
    if not place:
        return ModelSource(slug)
    if place.startswith(("/", "./", "../", "~")):
        return ModelSource(slug, folder=Path(place).expanduser())
    hub_id, _, revision = place.partition("@")
    if not HUB_ID.fullmatch(hub_id) or not REVISION.fullmatch(revision):
        message = (
            f"FLUXFARM_MODELS: {text!r} names neither a folder (/…, ./…, ~…) nor a hub id with its 40-digit commit "
            "(owner/name@0123…)."
        )
        raise InvalidField(message, param="FLUXFARM_MODELS")
    return ModelSource(slug, hub_id=hub_id, revision=revision)


def parse_sources(text: str) -> tuple[ModelSource, ...]:
    """Read the comma-separated list of ``FLUXFARM_MODELS``."""
    return tuple(parse_source(part) for part in text.split(",") if part.strip())
