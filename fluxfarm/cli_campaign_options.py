"""What several commands of `fluxfarm campaign` are told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fluxfarm.campaigns.files import load
from fluxfarm.campaigns.review_record import Choice

Which = Annotated[str, typer.Argument(metavar="NAME", help="The campaign's name or id, or its file.")]
Only = Annotated[Choice, typer.Option(help="Which files; auto: the approved ones of a campaign with review, else all.")]


def name_of(text: str) -> str:
    """The campaign's name, also when its file is named."""
    path = Path(text)
    return load(path).spec.name if path.suffix.lower() in {".yaml", ".yml", ".json"} and path.is_file() else text
