"""`fluxfarm campaign`: what people do with the pictures. They look, judge, pick, and show them to others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from fluxfarm.campaigns.review_record import Choice, Share, Verdict
from fluxfarm.cli_campaign import campaign
from fluxfarm.cli_campaign_options import Only, Which, name_of
from fluxfarm.cli_options import Force, Json, client_of
from fluxfarm.cli_output import as_json, say, show, show_json, show_table
from fluxfarm.errors import InvalidField
from fluxfarm.jobs import JobState

__all__ = ["campaign"]  # with the commands of this module

Files = Annotated[list[str], typer.Argument(metavar="FILE…", help="Names of files, as `files` lists them.")]


@campaign.command()
def files(
    context: typer.Context,
    name: Which,
    *,
    status: Annotated[JobState | None, typer.Option(case_sensitive=False, help="Only of this state.")] = None,
    verdict: Annotated[str | None, typer.Option(help="none, approve, reject or regenerate.")] = None,
    drafts: Annotated[bool | None, typer.Option("--drafts/--masters", help="Only drafts, or only masters.")] = None,
    json: Json = False,
) -> None:
    """List the files of a campaign."""
    with client_of(context) as client:
        found = list(client.campaigns.assets(name_of(name), status=status, verdict=verdict, drafts=drafts))
    if json:
        show_json({"data": [as_json(one) for one in found]})
        return
    rows = [(one.name, str(one.status or "erased"), one.verdict or "-", str(one.seed)) for one in found]
    show_table(("file", "state", "verdict", "seed"), rows)


@campaign.command()
def review(
    context: typer.Context,
    name: Which,
    verdict: Annotated[Verdict, typer.Argument(help="What is said.")],
    files: Files,
    *,
    comment: Annotated[str, typer.Option(help="Why.")] = "",
    author: Annotated[str, typer.Option(help="Who says so; else the key's id.")] = "",
    prompt: Annotated[str | None, typer.Option(help="With regenerate: another prompt.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="With regenerate: another seed.")] = None,
    json: Json = False,
) -> None:
    """Approve, reject, comment on or regenerate files; all of them or none."""
    with client_of(context) as client:
        count = client.campaigns.review(
            name_of(name), files, verdict, comment=comment, author=author, prompt=prompt, seed=seed
        )
    if json:
        show_json({"reviewed": count})
    else:
        show(f"{verdict}: {count}")


@campaign.command()
def reviews(
    context: typer.Context,
    name: Which,
    *,
    file: Annotated[str | None, typer.Option(help="Only what was said of this file.")] = None,
    json: Json = False,
) -> None:
    """List what was said of the files, the oldest first."""
    with client_of(context) as client:
        found = list(client.campaigns.reviews(name_of(name), file))
    if json:
        show_json({"data": [as_json(one) for one in found]})
        return
    rows = [(f"{one.created_at:%Y-%m-%d %H:%M}", one.file, one.verdict, one.author, one.comment) for one in found]
    show_table(("when", "file", "verdict", "who", "why"), rows)


@campaign.command()
def masters(
    context: typer.Context,
    name: Which,
    picks: Annotated[list[str] | None, typer.Argument(metavar="[FILE…]", help="Else every approved draft.")] = None,
    *,
    placement: Annotated[
        list[str] | None,
        typer.Option(help="A placement, preset or size instead of its own; may be repeated."),
    ] = None,
    json: Json = False,
) -> None:
    """Render picked pictures in full, with the same prompt and seed."""
    with client_of(context) as client:
        found = client.campaigns.masters(name_of(name), picks or (), placement or ())
    if json:
        show_json(as_json(found))
        return
    for made in found.made:
        show(made)
    if found.existing:
        say(f"{len(found.existing)} were there already.")


@campaign.command()
def sheet(
    context: typer.Context,
    name: Which,
    *,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A .pdf or .png; else NAME.pdf.")] = None,
    only: Only = Choice.AUTO,
    page: Annotated[int, typer.Option(min=1, help="Of a PNG, with thirty pictures each.")] = 1,
    force: Force = False,
    json: Json = False,
) -> None:
    """Download a contact sheet: the pictures small, with their names."""
    called = name_of(name)
    target = output or Path(f"{called}.pdf")
    if target.suffix.lower() not in {".pdf", ".png"}:
        raise InvalidField(f"{target} is neither .pdf nor .png.", param="output")
    if target.exists() and not force:
        raise InvalidField(f"{target} exists; say --force to write over it.", param="output")
    with client_of(context) as client:
        size = client.campaigns.contact_sheet(called, target, only=only, page=page)
    if json:
        show_json({"file": str(target), "bytes": size})
    else:
        show(str(target))


@campaign.command()
def share(
    context: typer.Context,
    name: Which,
    *,
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long the link lives.")] = 14,
    only: Only = Choice.AUTO,
    json: Json = False,
) -> None:
    """Make a link that shows the files to people without a key; it is told this once."""
    with client_of(context) as client:
        made = client.campaigns.share(name_of(name), datetime.now(UTC) + timedelta(days=days), only=only)
    if json:
        show_json(as_json(made))
    else:
        show(made.url or "")
        say(f"Until {made.expires_at:%Y-%m-%d %H:%M} UTC. Close it with: fluxfarm campaign unshare {name} {made.id}")


@campaign.command()
def shares(context: typer.Context, name: Which, *, json: Json = False) -> None:
    """List the links that show a campaign, the newest first."""
    with client_of(context) as client:
        found = client.campaigns.shares(name_of(name))
    if json:
        show_json({"data": [as_json(one) for one in found]})
        return
    rows = [(str(one.id), one.only.value, _state(one), str(one.opened)) for one in found]
    show_table(("link", "shows", "state", "opened"), rows)


def _state(one: Share) -> str:
    if one.revoked_at is not None:
        return f"closed {one.revoked_at:%Y-%m-%d}"
    return f"{'over' if one.expires_at <= datetime.now(UTC) else 'open until'} {one.expires_at:%Y-%m-%d}"


@campaign.command()
def unshare(
    context: typer.Context,
    name: Which,
    link: Annotated[str, typer.Argument(metavar="LINK", help="The link's id, as `shares` lists it.")],
) -> None:
    """Close a link at once."""
    with client_of(context) as client:
        client.campaigns.revoke_share(name_of(name), link)
