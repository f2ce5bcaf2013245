"""`fluxfarm verify`: where a picture comes from, and whether it was changed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from fluxfarm.cli_options import Json, client_of
from fluxfarm.cli_output import as_json, show, show_json

WORDS: Final = {
    "made_here": "made by this farm, unchanged",
    "signed_elsewhere": "signed by another authority, unchanged",
    "changed": "CHANGED since it was signed",
    "unsigned": "carries no signed manifest",
}
NOT_OURS: Final = 1  #: exit status unless every file was made here


def verify(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, readable=True)],
    *,
    json: Json = False,
) -> None:
    """Say where pictures come from and whether they were changed; exit 0 only if all were made here."""
    with client_of(context) as client:
        found = [(file, client.verify(file)) for file in files]
    if json:
        show_json({"data": [{"file": str(file), **as_json(one)} for file, one in found]})
    else:
        for file, one in found:
            made = f" (job {one.job})" if one.job else ""
            mark = "; its pixels carry this farm's watermark" if one.watermark else ""
            show(f"{file}: {WORDS[one.verdict]}{made}{mark}")
    if any(one.verdict != "made_here" for _, one in found):
        raise typer.Exit(NOT_OURS)
