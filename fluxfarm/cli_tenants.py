"""`fluxfarm tenants`: who shares the farm, for its operator."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fluxfarm.cli_options import Json, client_of
from fluxfarm.cli_output import as_json, show, show_json, show_table
from fluxfarm.client_replies import TenantReply

tenants = typer.Typer(help="Who shares the farm; for its operator.", no_args_is_help=True)

NO_LIMIT = 0  #: on the command line, where null cannot be typed
AS_THE_FARM = -1  #: the same, where 0 means for ever

Weight = Annotated[float | None, typer.Option(help="Share of the GPUs against the others.")]
Commercial = Annotated[bool | None, typer.Option(help="It renders for business: only weights that allow it.")]
Model = Annotated[list[str] | None, typer.Option(help="One that it may render; 'all' lifts it. May be repeated.")]
MaxRunning = Annotated[int | None, typer.Option(min=0, help="Jobs that may render at once; 0 lifts it.")]
RateLimit = Annotated[int | None, typer.Option(min=0, help="Calls a minute of each of its keys; 0 lifts it.")]
PromptDays = Annotated[
    int | None, typer.Option(min=-1, help="Days that prompts are kept; 0: until erased; -1: as the farm has it.")
]
ReferenceHours = Annotated[int | None, typer.Option(min=-1, help="Hours that references are kept; 0 and -1 as above.")]
ResultDays = Annotated[int | None, typer.Option(min=-1, help="Days that pictures are kept; 0 and -1 as above.")]
RecordDays = Annotated[int | None, typer.Option(min=-1, help="Days that records are kept; 0 and -1 as above.")]


@tenants.command("list")
def list_tenants(context: typer.Context, *, json: Json = False) -> None:
    """List the tenants."""
    with client_of(context) as client:
        found = client.tenants()
    if json:
        show_json({"data": [as_json(one) for one in found]})
        return
    rows = [
        (
            str(one.id),
            f"{one.weight:g}",
            str(one.max_running or "-"),
            str(one.rate_limit or "-"),
            "commercial" if one.commercial else "-",
            ", ".join(one.models) if one.models is not None else "all",
            one.name,
        )
        for one in found
    ]
    show_table(("id", "weight", "running", "rate", "use", "models", "name"), rows)


@tenants.command("create")
def create_tenant(
    context: typer.Context,
    name: Annotated[str, typer.Argument()],
    *,
    weight: Weight = None,
    commercial: Commercial = None,
    model: Model = None,
    max_running: MaxRunning = None,
    rate_limit: RateLimit = None,
    prompt_days: PromptDays = None,
    reference_hours: ReferenceHours = None,
    result_days: ResultDays = None,
    record_days: RecordDays = None,
    json: Json = False,
) -> None:
    """Make a tenant; `fluxfarm keys create --tenant ID --scope admin` gives it a key."""
    kept = _kept(prompt_days, reference_hours, result_days, record_days)
    policy = _policy(weight, commercial, model, max_running, rate_limit, kept)
    with client_of(context) as client:
        made = client.create_tenant(name, policy)
    _tell(made, json=json)


@tenants.command("set")
def change_tenant(
    context: typer.Context,
    tenant: Annotated[str, typer.Argument(metavar="ID")],
    *,
    weight: Weight = None,
    commercial: Commercial = None,
    model: Model = None,
    max_running: MaxRunning = None,
    rate_limit: RateLimit = None,
    prompt_days: PromptDays = None,
    reference_hours: ReferenceHours = None,
    result_days: ResultDays = None,
    record_days: RecordDays = None,
    json: Json = False,
) -> None:
    """Change what is named; the rest stays."""
    kept = _kept(prompt_days, reference_hours, result_days, record_days)
    policy = _policy(weight, commercial, model, max_running, rate_limit, kept)
    with client_of(context) as client:
        changed = client.change_tenant(tenant, policy)
    _tell(changed, json=json)


def _tell(tenant: TenantReply, *, json: bool) -> None:
    if json:
        show_json(as_json(tenant))
    else:
        show(str(tenant.id))


def _policy(
    weight: float | None,
    commercial: bool | None,
    model: list[str] | None,
    max_running: int | None,
    rate_limit: int | None,
    retention: dict[str, int | None],
) -> dict[str, Any]:
    """What was named, as the API has it."""
    limits = {"maxRunning": max_running, "rateLimit": rate_limit}
    policy: dict[str, Any] = {"weight": weight, "commercial": commercial}
    policy = {name: value for name, value in policy.items() if value is not None} | _limits(limits)
    if model:
        policy["models"] = None if model == ["all"] else model
    if retention:
        policy["retention"] = retention
    return policy


def _kept(
    prompt_days: int | None, reference_hours: int | None, result_days: int | None, record_days: int | None
) -> dict[str, int | None]:
    named = {
        "promptDays": prompt_days,
        "referenceHours": reference_hours,
        "resultDays": result_days,
        "recordDays": record_days,
    }
    return {name: None if value == AS_THE_FARM else value for name, value in named.items() if value is not None}


def _limits(values: dict[str, int | None]) -> dict[str, int | None]:
    return {name: None if value == NO_LIMIT else value for name, value in values.items() if value is not None}
