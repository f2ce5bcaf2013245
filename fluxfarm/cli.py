"""The command line: `fluxfarm up` runs a farm, everything else talks to one.

Exit codes: 0 done; 1 the job failed or was canceled, or the doctor found a fault; 2 bad usage or input; 3 no farm
answers, or it cannot serve now (429, 5xx); 4 the key is refused, or there is no such thing; 130 Ctrl-C. With ``--json``
stdout holds one JSON value and nothing else, and an error is one line of problem JSON on stderr.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from itertools import islice
from typing import Annotated

import typer

from fluxfarm import __version__, cli_farm, cli_money, cli_render, cli_retry, cli_verify
from fluxfarm.cli_campaign_people import campaign
from fluxfarm.cli_keys import keys
from fluxfarm.cli_options import Force, Json, Output, Place, Uuid, client_of
from fluxfarm.cli_output import (
    HELP,
    ExitCode,
    as_json,
    complain,
    complain_json,
    exit_code,
    plain,
    show,
    show_json,
    show_record,
    show_table,
)
from fluxfarm.cli_tenants import tenants
from fluxfarm.cli_webhooks import webhooks
from fluxfarm.client_options import RenderOptions
from fluxfarm.errors import Conflict, FluxfarmError, InvalidField
from fluxfarm.jobs import JobState, Lane

app = typer.Typer(
    name="fluxfarm",
    help="A self-hosted rendering farm for FLUX.2 images.",
    epilog=HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(keys, name="keys")
app.add_typer(tenants, name="tenants")
app.add_typer(webhooks, name="webhooks")
app.add_typer(campaign, name="campaign")
app.command()(cli_farm.up)
app.command()(cli_farm.demo)
app.command()(cli_farm.doctor)
app.command()(cli_verify.verify)
app.command()(cli_money.usage)
app.command()(cli_money.providers)


def _version(*, wanted: bool) -> None:
    if wanted:
        show(f"fluxfarm {__version__}")
        raise typer.Exit


@app.callback()
def _global(
    context: typer.Context,
    *,
    url: Annotated[str | None, typer.Option(help="The farm; FLUXFARM_URL, or else the one running here.")] = None,
    api_key: Annotated[
        str | None, typer.Option(help="Its key. Others can see it in the process list: better set FLUXFARM_API_KEY.")
    ] = None,
    version: Annotated[  # noqa: ARG001 - the callback does the work
        bool, typer.Option("--version", callback=lambda value: _version(wanted=value), is_eager=True, help="Print it.")
    ] = False,
) -> None:
    context.obj = Place(url, api_key)


@app.command()
def render(
    context: typer.Context,
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    *,
    output: Output = None,
    force: Force = False,
    model: Annotated[str | None, typer.Option(help="Slug or alias; else the first that the farm has ready.")] = None,
    size: Annotated[str | None, typer.Option(help="1024x768, 16:9 or auto.")] = None,
    n: Annotated[int | None, typer.Option("--n", "-n", help="How many pictures.")] = None,
    seed: Annotated[int | None, typer.Option(help="0 to 2^63 - 1; the same seed draws the same picture.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    guidance: Annotated[float | None, typer.Option(help="How closely to follow the prompt.")] = None,
    image: Annotated[
        list[str] | None, typer.Option(help="Reference: a file, an https URL or a ref_ id. May be repeated.")
    ] = None,
    format: Annotated[str | None, typer.Option(help="png, jpeg, webp, avif or gif; else as the file's name.")] = None,  # noqa: A002
    quality: Annotated[int | None, typer.Option(help="0 to 100, where the format has one.")] = None,
    lane: Annotated[Lane | None, typer.Option(help="How urgent it is.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A word to find the job by. May be repeated.")] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Print the job's uuid at once; 'get' fetches it.")] = False,
    json: Json = False,
) -> None:
    """Render a prompt and write the pictures; Ctrl-C cancels the job."""
    target = cli_render.Target(output, force)
    options: RenderOptions = {"images": image or [], "tags": tag or []}
    said = {
        "model": model,
        "size": size,
        "n": n,
        "seed": seed,
        "steps": steps,
        "guidance": guidance,
        "output_format": target.format(format),
        "output_quality": quality,
        "lane": lane,
    }
    options |= {name: value for name, value in said.items() if value is not None}  # type: ignore[typeddict-item]
    target.check(n or 1)
    with client_of(context) as client:
        cli_render.run(client, client.prepare(prompt, **options), target, wait=not no_wait, machine=json)


@app.command()
def get(
    context: typer.Context,
    uuid: Uuid,
    *,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the job's end.")] = 0,
    output: Output = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Show a job, and with -o fetch its pictures; ends with 1 when the job failed or was canceled."""
    target = cli_render.Target(output, force)
    with client_of(context) as client:
        try:
            record = client.wait(uuid, timeout=wait) if wait else client.get(uuid)
        except Conflict:
            record = client.get(uuid)
        target.check(len(record.temporary_urls))
        files = cli_render.fetch(client, record, target) if output is not None and record.temporary_urls else []
    if not json and output is None:
        show_record(record)
    cli_render.report(record, files, machine=json)
    if output is not None and not files:
        raise Conflict(f"Job {record.uuid} is {record.status}; it has no pictures yet.")


@app.command("list")
def list_(
    context: typer.Context,
    *,
    status: Annotated[JobState | None, typer.Option(help="Only jobs in this state.", case_sensitive=False)] = None,
    campaign: Annotated[str | None, typer.Option(help="Only jobs of this campaign.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only jobs with this tag.")] = None,
    error: Annotated[str | None, typer.Option(help="Only jobs that ended with this code.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    json: Json = False,
) -> None:
    """List jobs, the newest first."""
    with client_of(context) as client:
        records = list(islice(client.iterate(status=status, campaign=campaign, tag=tag, error=error), limit))
    if json:
        show_json({"data": [as_json(record) for record in records]})
        return
    rows = [
        (
            str(record.uuid),
            record.status.value,
            f"{record.created_at:%Y-%m-%d %H:%M}",
            record.model,
            str(record.ai_record_detail.prompt_object.get("prompt", "")),
        )
        for record in records
    ]
    show_table(("uuid", "status", "created", "model", "prompt"), rows)


@app.command()
def cancel(context: typer.Context, uuid: Uuid, *, json: Json = False) -> None:
    """Stop a job."""
    with client_of(context) as client:
        record = client.cancel(uuid)
    if json:
        show_json({"aiRecord": as_json(record)})
    else:
        show(f"{record.uuid} {record.status}")


@app.command()
def retry(
    context: typer.Context,
    uuid: Annotated[str | None, typer.Argument(metavar="[UUID]", help="The job.")] = None,
    *,
    failed: Annotated[bool, typer.Option("--failed", help="Every failed job that fits, each one once.")] = False,
    error: Annotated[str | None, typer.Option(help="With --failed: only those with this error code.")] = None,
    campaign: Annotated[str | None, typer.Option(help="With --failed: only those of this campaign.")] = None,
    tag: Annotated[str | None, typer.Option(help="With --failed: only those with this tag.")] = None,
    json: Json = False,
) -> None:
    """Try a failed or canceled job again, as a new job with the same seeds."""
    narrowed = any(word is not None for word in (error, campaign, tag))
    if (uuid is None) != failed or (narrowed and not failed):
        raise InvalidField("Name one job, or say --failed with --error, --campaign or --tag.", param="uuid")
    with client_of(context) as client:
        if uuid is None:
            cli_retry.failed(client, error=error, campaign=campaign, tag=tag, machine=json)
        else:
            cli_retry.one(client, uuid, machine=json)


@app.command()
def delete(context: typer.Context, uuid: Uuid, *, json: Json = False) -> None:
    """Erase a job: its record, its pictures and its prompt."""
    with client_of(context) as client:
        client.delete(uuid)
    if json:
        show_json({"deleted": uuid})
    else:
        show(f"{uuid} deleted")


@app.command()
def models(context: typer.Context, *, json: Json = False) -> None:
    """List the models that the farm knows."""
    with client_of(context) as client:
        found = client.models()
    if json:
        show_json({"data": [as_json(model) for model in found]})
        return
    # "waits": the farm is set up for the model, but no worker of it is alive.
    rows = [(one.id, "ready" if one.ready else "waits" if one.local else "-", one.licence, one.name) for one in found]
    show_table(("model", "here", "licence", "name"), rows)


@app.command()
def workers(context: typer.Context, *, json: Json = False) -> None:
    """List the processes that render."""
    with client_of(context) as client:
        found = client.workers()
    if json:
        show_json({"data": [as_json(worker) for worker in found]})
        return
    rows = [(one.name, one.state, one.provider, one.device, str(one.slots), ", ".join(one.models)) for one in found]
    show_table(("worker", "state", "provider", "device", "slots", "models"), rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is one of ``ExitCode``."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    machine = "--json" in arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a locale without the letters must not end a command
    try:
        return int(app(arguments, prog_name="fluxfarm", standalone_mode=not machine) or 0)
    except SystemExit as end:
        return int(end.code or 0)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except FluxfarmError as error:
        complain(error, machine=machine)
        return exit_code(error)
    except typer.TyperException as error:
        complain_json({"title": "Usage", "code": "usage", "detail": plain(error.format_message())})
        return ExitCode.BAD_INPUT
