"""`fluxfarm campaign`: plan, run, watch and deliver thousands of pictures."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated

import typer

from fluxfarm import cli_campaign_watch
from fluxfarm.bucket import Bucket
from fluxfarm.campaigns.record import CampaignRecord, Plan
from fluxfarm.campaigns.review_record import Choice
from fluxfarm.campaigns.starter import FILES
from fluxfarm.cli_campaign_options import Only, Which, name_of
from fluxfarm.cli_options import Force, Json, client_of
from fluxfarm.cli_output import as_json, say, show, show_json, show_table
from fluxfarm.client_place import read_settings
from fluxfarm.errors import InvalidField

campaign = typer.Typer(help="Thousands of pictures from one template and a product feed.", no_args_is_help=True)

SpecFile = Annotated[Path, typer.Argument(metavar="FILE", help="The specification, YAML or JSON.")]


@campaign.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Where to write it; made if it is missing.")] = Path(),
    *,
    force: Force = False,
) -> None:
    """Write a small campaign to start from."""
    folder.mkdir(parents=True, exist_ok=True)
    taken = [name for name in FILES if (folder / name).exists()]
    if taken and not force:
        raise InvalidField(f"{folder / taken[0]} exists; say --force to write over it.", param="folder")
    for name, content in FILES.items():
        (folder / name).write_text(content, encoding="utf-8")
        show(str(folder / name))
    say(f"Next: fluxfarm campaign plan {folder / 'campaign.yaml'}")


@campaign.command()
def plan(context: typer.Context, file: SpecFile, *, json: Json = False) -> None:
    """Say what a campaign would draw, take and cost; nothing is made."""
    with client_of(context) as client:
        found = client.campaigns.plan(file)
    if json:
        show_json({"plan": as_json(found)})
    else:
        _show_plan(found)


@campaign.command()
def run(
    context: typer.Context,
    file: SpecFile,
    *,
    hold: Annotated[bool, typer.Option("--hold", help="Store it, and let `resume` start it.")] = False,
    watch: Annotated[bool, typer.Option(help="Show its progress until it is done.")] = True,
    json: Json = False,
) -> None:
    """Make a campaign and watch it; the same file again makes no second one, and goes on watching."""
    with client_of(context) as client:
        record = client.campaigns.run(file, start=not hold)
        if watch and not hold and not json:
            say(f"{record.name}: {record.arithmetic} files")
            cli_campaign_watch.follow(client, record.name)
            return
    _show(record, machine=json)


@campaign.command("watch")
def watch_campaign(context: typer.Context, name: Which) -> None:
    """Show the progress of a campaign until it is done; Ctrl-C leaves it running."""
    with client_of(context) as client:
        cli_campaign_watch.follow(client, name_of(name))


@campaign.command("status")
def status(context: typer.Context, name: Which, *, json: Json = False) -> None:
    """Say once how far a campaign is."""
    with client_of(context) as client:
        _show(client.campaigns.get(name_of(name)), machine=json)


@campaign.command("list")
def list_(context: typer.Context, *, json: Json = False) -> None:
    """List the campaigns, the newest first."""
    with client_of(context) as client:
        found = list(client.campaigns.list())
    if json:
        show_json({"data": [as_json(one) for one in found]})
        return
    rows = [
        (
            one.name,
            one.state.value,
            f"{one.files.success}/{one.files.total}",
            f"{cli_campaign_watch.usd(one.spent)} USD",
        )
        for one in found
    ]
    show_table(("name", "state", "done", "spent"), rows)


@campaign.command()
def pause(context: typer.Context, name: Which, *, json: Json = False) -> None:
    """Hold a campaign back: jobs in flight finish."""
    with client_of(context) as client:
        _show(client.campaigns.pause(name_of(name)), machine=json)


@campaign.command()
def resume(context: typer.Context, name: Which, *, json: Json = False) -> None:
    """Let a campaign run on."""
    with client_of(context) as client:
        _show(client.campaigns.resume(name_of(name)), machine=json)


@campaign.command()
def cancel(context: typer.Context, name: Which, *, json: Json = False) -> None:
    """End a campaign for good: jobs in flight finish."""
    with client_of(context) as client:
        _show(client.campaigns.cancel(name_of(name)), machine=json)


@campaign.command()
def retry(context: typer.Context, name: Which, *, json: Json = False) -> None:
    """Try the failed pictures of a campaign again, and only those."""
    with client_of(context) as client:
        count = client.campaigns.retry(name_of(name))
    if json:
        show_json({"retried": count})
    else:
        show(f"{count} retried")


@campaign.command()
def budget(
    context: typer.Context,
    name: Which,
    usd: Annotated[str, typer.Argument(metavar="USD", help="What it may cost in all; 'none' lifts the limit.")],
    *,
    json: Json = False,
) -> None:
    """Change what a campaign may cost, also while it runs."""
    try:
        amount = None if usd == "none" else Decimal(usd)
    except InvalidOperation:
        raise InvalidField(f"{usd[:40]!r} is not an amount; write it as 12.50.", param="budget") from None
    with client_of(context) as client:
        _show(client.campaigns.set_budget(name_of(name), amount), machine=json)


@campaign.command()
def export(
    context: typer.Context,
    name: Which,
    *,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The ZIP; else NAME.zip.")] = None,
    to: Annotated[
        str | None,
        typer.Option(metavar="s3://BUCKET/PREFIX", help="Into a bucket, with your own key (AWS_ACCESS_KEY_ID, …)."),
    ] = None,
    only: Only = Choice.AUTO,
    force: Force = False,
    json: Json = False,
) -> None:
    """Download the pictures of a campaign under their names, with a manifest; or write them into your own bucket."""
    called = name_of(name)
    if to is not None:
        bucket = Bucket.of(to, read_settings())
        with client_of(context) as client:
            done = client.campaigns.deliver(called, bucket, only=only)
        if json:
            show_json({"to": str(bucket), "files": done.files, "bytes": done.size})
        else:
            show(f"{bucket} {done.files} files, {done.size:,} bytes")
        return
    target = output or Path(f"{called}.zip")
    if target.exists() and not force:
        raise InvalidField(f"{target} exists; say --force to write over it.", param="output")
    with client_of(context) as client:
        size = client.campaigns.export(called, target, only=only)
    if json:
        show_json({"file": str(target), "bytes": size})
    else:
        show(str(target))


def _show(record: CampaignRecord, *, machine: bool) -> None:
    if machine:
        show_json({"campaign": as_json(record)})
        return
    files = record.files if record.drafts is None or record.files.total else record.drafts
    show(f"{record.name}  {record.state}  {files.success}/{files.total} done, {files.failed} failed")


def _show_plan(found: Plan) -> None:
    show(f"campaign   {found.name}{' (made before; running it makes no second one)' if found.exists else ''}")
    show(f"files      {found.arithmetic}")
    if found.duplicates:
        show(f"renders    {found.renders:,} ({found.duplicates:,} files are the same picture as another one)")
    show(f"sizes      {', '.join(f'{name} {size}' for name, size in found.sizes.items())}")
    show(f"seeds      {', '.join(map(str, found.seeds[:8]))}{' …' if len(found.seeds) > 8 else ''}")  # noqa: PLR2004
    for route in found.routes:
        money = "no price" if route.usd is None else f"{cli_campaign_watch.usd(route.usd)} USD"
        seconds = "" if route.gpu_seconds is None else f", {route.gpu_seconds:,.0f} GPU-seconds"
        show(f"route      {route.provider}: {money}{seconds}{'' if route.available else ' (not set up here)'}")
    eta = found.eta_note if found.eta is None else f"{found.eta.p50:%Y-%m-%d %H:%M}, at worst {found.eta.p90:%H:%M} UTC"
    show(f"done by    {eta}")
    for prompt in found.prompts:
        show(f"prompt     {prompt}")
    for name in found.names[:3]:
        show(f"name       {name}")
    for warning in found.warnings:
        say(f"Warning: {warning}")
    for one in found.row_warnings:
        more = one.total - len(one.rows)
        rows = f" (rows {', '.join(map(str, one.rows))}{f' and {more:,} more' if more else ''})"
        say(f"Warning: {one.message}{rows if one.rows != [0] else ''}")
