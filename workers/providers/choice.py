"""Who is asked for what is missing of a job: weighed anew at each attempt, and reserved before anything is spent."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from PIL import Image

from fluxfarm.errors import LeaseLost, ProviderBusy, ProviderRefused
from fluxfarm.offers import Behaviour, Offer
from fluxfarm.request import RenderRequest
from fluxfarm.routing import Candidate, Facts, RoutePlan, Wish, refusal, weigh
from fluxfarm.sizes import Size
from storage.database import Session
from storage.remote_records import RemoteCall
from storage.repository import accounts, attempts, jobs, ledger, routes
from workers.leases import Held

if TYPE_CHECKING:
    from workers.providers.remote import RemoteRenderer


def choose(
    renderer: RemoteRenderer,
    held: Held,
    missing: Sequence[int],
    opened: Sequence[RemoteCall],
    references: tuple[bytes, ...],
) -> Candidate:
    """The best candidate that the money reaches; the attempt says who was weighed, and the price is reserved.

    Raises:
        ProviderBusy: nobody can take it now, and somebody may later.
        ProviderRefused: nobody ever can.
        BudgetExceeded: a budget has no room for any that could.
        LeaseLost: the attempt is over.
    """
    claim = held.claim
    request = claim.request.model_copy(update={"seeds": tuple(claim.request.seeds[n] for n in missing)})
    sizes = [_size(png) for png in references]
    health = renderer.board.health()
    bound = sum((call.price for call in opened), Decimal(0))
    with renderer.database.transaction() as session:
        facts = Facts(
            health=health,
            own_keys=accounts.names(session, claim.tenant_id),
            # An attempt that was over before anybody was chosen is nobody's failure.
            failures={who: n for who, n in routes.failures(session, claim.uuid).items() if who != renderer.name},
            most_failures=renderer.settings.max_attempts,
            spent=jobs.cost(session, claim.uuid) + bound,
            seconds_left=None if claim.deadline is None else (claim.deadline - datetime.now(UTC)).total_seconds(),
        )
        wish = Wish() if claim.route is None else claim.route.wish
        plan = weigh(request, sizes, wish, renderer.remotes, facts)
        plan, chosen = _afford(session, held, plan, bound)
        held.plan = plan
        if chosen is None:
            raise _none(plan, claim.request.model)
        offer = renderer.remotes[chosen.provider].offer(chosen.model)
        assert offer is not None
        note = _note(offer, plan, claim.request, jobs.asked(session, claim.uuid))
        if not attempts.routed(session, claim, note | {"provider": chosen.provider, "model": chosen.model}):
            raise LeaseLost("Another attempt owns the job.")
    return chosen


def _afford(session: Session, held: Held, plan: RoutePlan, bound: Decimal) -> tuple[RoutePlan, Candidate | None]:
    """Reserve for the best candidate that every budget has room for."""
    claim = held.claim
    found, broke = list(plan.candidates), None
    for index, one in enumerate(found):
        if one.refused is not None:
            continue
        broke = ledger.afford(session, claim.tenant_id, claim.campaign, claim.uuid, one.charge + bound)
        if broke is None:
            return plan.model_copy(update={"candidates": tuple(found), "choice": one.provider}), one
        found[index] = one.model_copy(update={"refused": broke.message})
    if broke is not None:
        raise broke
    return plan.model_copy(update={"choice": None}), None


def _none(plan: RoutePlan, model: str) -> Exception:
    passing = [one for one in plan.candidates if one.for_now]
    message = refusal(plan, model).message
    if passing:
        return ProviderBusy(message)
    return ProviderRefused(message)


def _note(offer: Offer, plan: RoutePlan, request: RenderRequest, asked: dict[str, Any]) -> dict[str, Any]:
    """What the attempt's row says of the route and of each parameter that the caller sent."""
    told = {
        name: {"behaviour": treatment.behaviour.value, "target": treatment.target}
        for name, treatment in offer.parameters.items()
        if name in asked and treatment.behaviour is not Behaviour.PASSTHROUGH
    }
    nobodys = request.options.keys() - offer.parameters.keys() - offer.extras
    told |= {name: {"behaviour": Behaviour.IGNORED.value, "target": ""} for name in sorted(nobodys)}
    drawn = offer.drawn_size(request.size) or request.size
    effective = request.effective() | {
        "width": drawn.width,
        "height": drawn.height,
        "endpoint": offer.endpoints[offer.kind(len(request.references))],
    }
    effective["acceleration"] = request.options.get("acceleration", "none")  # the provider's own, where it has one
    del effective["loras"]
    for name, own in (("num_inference_steps", "steps"), ("guidance", "guidance"), ("acceleration", "acceleration")):
        if offer.parameters[name].behaviour is Behaviour.IGNORED:
            effective.pop(own)
    return {
        "route": plan.model_dump(mode="json", by_alias=True),
        "parameters": told,
        "effective": effective,
        "ignored": sorted(name for name, one in told.items() if one["behaviour"] == Behaviour.IGNORED),
    }


def _size(png: bytes) -> Size:
    with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
        return Size(*picture.size)
