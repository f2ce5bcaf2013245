"""Where an order goes: to the farm's own workers, or to the remote ones; decided in the transaction that stores it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

from api.farm import Farm
from fluxfarm.catalog import find_model
from fluxfarm.costs import gpu_seconds
from fluxfarm.errors import InvalidField, NoRoute, UnknownField
from fluxfarm.licences import Permit
from fluxfarm.pricing import SMALLEST
from fluxfarm.remotes import AUTO, LOCAL, Remotes
from fluxfarm.request import RenderRequest
from fluxfarm.routing import Facts, Health, LocalFacts, RoutePlan, Wish, refusal, weigh
from fluxfarm.settings import Settings
from fluxfarm.sizes import Size
from storage.database import Session
from storage.queue import REMOTE_QUEUE, local_queue
from storage.records import Job
from storage.repository import accounts, explain, workers

HealthBoard = Mapping[tuple[str, str], Health]


@dataclass(frozen=True, slots=True)
class Route:
    """The queue, what is reserved for it (USD), and what was wished and weighed; no plan: nothing was."""

    queue: str
    price: Decimal
    plan: RoutePlan | None = None


def look_around(farm: Farm) -> HealthBoard:
    """How the providers are; asks outside of any transaction, and nobody where jobs cannot leave the farm."""
    return farm.board.health() if farm.remotes.enabled else {}


def check_wish(farm: Farm, wish: Wish) -> None:
    """Only providers that this farm can speak to may be named.

    Raises:
        InvalidField: another name, or one twice; ``auto`` begins with ``local``.
    """
    places = (wish.provider, *(wish.fallback or ()))
    known = {AUTO, LOCAL, *farm.remotes}
    for index, place in enumerate(places):
        if place not in known or place in places[:index]:
            param = "provider" if not index else f"fallback.{index - 1}"
            names = ", ".join(sorted(known - {AUTO, LOCAL}))
            raise InvalidField(
                f"{param} is {place[:40]!r}; take auto, local or one of {names}, each once.", param=param
            )
    if LOCAL in places and wish.provider == AUTO:
        message = (
            "provider auto begins with local: leave local out of the fallback, or say provider: local for nobody else."
        )
        raise InvalidField(message, param=f"fallback.{places.index(LOCAL) - 1}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What is known when the jobs of one call are routed."""

    settings: Settings
    remotes: Remotes
    permit: Permit
    health: HealthBoard
    own_keys: frozenset[str] = frozenset()
    workers: int = 0  #: slots of live ones that render the model

    def check_fields(self, names: Sequence[str], model: str, wish: Wish) -> None:
        """Each of these fields must be the own one of somebody who may render the model.

        Raises:
            UnknownField: it is nobody's.
        """
        if not names:
            return
        models = (model, *wish.with_substitutes(model, self.permit.allows).substitutes)
        known = {
            name
            for remote in (self.remotes.values() if self.remotes.enabled else ())
            if wish.rank(remote.name) is not None and (remote.is_configured or remote.name in self.own_keys)
            for offer in map(remote.offer, models)
            if offer is not None
            for name in offer.extras
        }
        for name in names:
            if name not in known:
                wanted = ", ".join(wish.places)
                message = f"{name!r} is a field of providers that may not render this ({model}; {wanted})."
                raise UnknownField(message, param=f"promptObject.{name}")

    def choose(
        self,
        request: RenderRequest,
        references: Sequence[Size],
        wish: Wish,
        *,
        deadline: datetime | None = None,
        seconds_to_start: float | None = None,
    ) -> Route:
        """The best place for a request.

        Raises:
            NoRoute: nobody ever can render it; the message has the reason of each who was weighed.
        """
        price = local_price(self.settings, request)
        if not (self.remotes.enabled and wish.may_leave):
            # What else was wished is kept for a retry, when there may be providers.
            plan = None if wish == Wish(provider=wish.provider) else RoutePlan(wish=wish, candidates=(), choice=LOCAL)
            return Route(own_queue(self.settings, request.model, wish), price, plan)
        local = LocalFacts(
            configured=has_weights(self.settings, request.model),
            workers=self.workers,
            seconds_to_start=seconds_to_start,
            price=price,
        )
        facts = Facts(
            local=local,
            health=self.health,
            own_keys=self.own_keys,
            most_failures=self.settings.max_attempts,
            seconds_left=None if deadline is None else (deadline - datetime.now(UTC)).total_seconds(),
        )
        plan = weigh(request, references, wish.with_substitutes(request.model, self.permit.allows), self.remotes, facts)
        chosen = next((one for one in plan.candidates if one.provider == plan.choice), None)
        if chosen is None:
            raise refusal(plan, request.model)
        queue = local_queue(request.model) if chosen.provider == LOCAL else REMOTE_QUEUE
        return Route(queue, chosen.charge, plan)


def survey(
    farm: Farm, session: Session, tenant_id: UUID, model: str, wish: Wish, health: HealthBoard, permit: Permit
) -> Surroundings:
    """Read what routing needs. No round trip is made for jobs that only the farm itself may render.

    Raises:
        LicenceForbidden, ModelForbidden: the tenant may not; the message names a model that it may render.
    """
    permit.check(model, (source.slug for source in farm.settings.models))
    if not (farm.remotes.enabled and wish.may_leave):
        return Surroundings(settings=farm.settings, remotes=farm.remotes, permit=permit, health=health)
    return Surroundings(
        settings=farm.settings,
        remotes=farm.remotes,
        permit=permit,
        health=health,
        own_keys=accounts.names(session, tenant_id),
        workers=workers.present_slots(session, local_queue(model)) if has_weights(farm.settings, model) else 0,
    )


def wish_of(job: Job) -> Wish:
    """What the caller of a stored job said about who may render it."""
    return Wish(provider=job.provider) if job.route is None else RoutePlan.model_validate(job.route).wish


def route_again(farm: Farm, session: Session, old: Job, health: HealthBoard, permit: Permit) -> Route:
    """Where a job that is tried again goes, by the wish that came with the first one.

    Raises:
        LicenceForbidden, ModelForbidden: the tenant may not render it any more.
        NoRoute: nobody ever can.
    """
    wish = wish_of(old)
    deadline = old.deadline if old.deadline is not None and old.deadline > datetime.now(UTC) else None
    around = survey(farm, session, old.tenant_id, old.model, wish, health, permit)
    return around.choose(old.render_request, (), wish, deadline=deadline)


def is_late(session: Session, job: Job) -> float | None:
    """Seconds until a job that was just stored would start here, when that is too late for its deadline."""
    if job.deadline is None or job.route is None or job.queue == REMOTE_QUEUE:
        return None
    able = workers.slots(session, job.queue)
    end = explain.expected_end(session, job, explain.standing(session, job), able)
    if end is None:
        return None
    seconds = (end - datetime.now(UTC)).total_seconds() - job.gpu_seconds
    return seconds if seconds > (job.deadline - datetime.now(UTC)).total_seconds() else None


def local_price(settings: Settings, request: RenderRequest) -> Decimal:
    """USD that the farm's own render is estimated at."""
    if not settings.gpu_second_price:
        return Decimal(0)
    return (settings.gpu_second_price * Decimal(str(gpu_seconds(request)))).quantize(SMALLEST)


def has_weights(settings: Settings, slug: str) -> bool:
    """Whether this farm is configured to render the model."""
    return any(source.slug in (slug, *find_model(slug).aliases) for source in settings.models)


def own_queue(settings: Settings, slug: str, wish: Wish | None = None) -> str:
    """The queue of the farm's own workers that render the model.

    Raises:
        NoRoute: nobody here ever can; the message says why and what to do.
    """
    if has_weights(settings, slug) and (wish is None or wish.rank(LOCAL) is not None):
        return local_queue(slug)
    if wish is not None and wish.rank(LOCAL) is None:
        raise NoRoute(f"{wish.provider} is a remote provider, and none is configured here.", param="provider")
    if not find_model(slug).is_local:
        raise NoRoute(f"{slug} is offered by remote providers only, and none is configured here.", param="model")
    hub_id = find_model(slug).hub_id or slug
    message = (
        f"This farm has no weights of {slug}; add '{slug}=/folder' or '{slug}={hub_id}@<commit>' to FLUXFARM_MODELS. "
        f"It renders: {', '.join(source.slug for source in settings.models)}."
    )
    raise NoRoute(message, param="model")
