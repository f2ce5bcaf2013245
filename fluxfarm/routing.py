"""Who renders a job: the caller's wish, what is known of each provider, and the choice; no I/O, the same everywhere.

The local pipeline comes first where the wish lets it, then the cheapest healthy provider that can do what is asked
within the cap. Every candidate that was weighed is kept with the reason that spoke against it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, PlainSerializer
from pydantic.alias_generators import to_camel

from fluxfarm.catalog import DEV, FLEX, KLEIN_4B, KLEIN_9B, KLEIN_BASE_4B, KLEIN_BASE_9B, MAX, PRO
from fluxfarm.errors import NoRoute
from fluxfarm.remotes import AUTO, LOCAL, Remote, Remotes
from fluxfarm.request import RenderRequest
from fluxfarm.sizes import Size

#: other models that draw much the same, the nearest first; taken only by callers who allow it
SUBSTITUTES: Final = MappingProxyType(
    {
        DEV.slug: (FLEX.slug, PRO.slug),
        FLEX.slug: (PRO.slug, DEV.slug),
        PRO.slug: (MAX.slug, FLEX.slug),
        MAX.slug: (PRO.slug,),
        KLEIN_4B.slug: (KLEIN_9B.slug, DEV.slug),
        KLEIN_9B.slug: (KLEIN_4B.slug, DEV.slug),
        KLEIN_BASE_4B.slug: (KLEIN_BASE_9B.slug, DEV.slug),
        KLEIN_BASE_9B.slug: (KLEIN_BASE_4B.slug, DEV.slug),
    }
)
SECOND: Final = 1e-6  #: USD that a second of waiting counts as in a score: it decides between equal prices, no more
UNKNOWN_SECONDS: Final = 30.0  #: for a provider that nobody has measured yet

Usd = Annotated[Decimal, PlainSerializer(str, return_type=str, when_used="json")]


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class Wish(_Part):
    """What the caller said about who may render; ``fallback`` None is the provider's own default.

    ``auto`` alone may fall back on anybody, a named provider (or ``local``) on nobody.
    """

    provider: str = AUTO
    fallback: tuple[str, ...] | None = None
    max_cost: Usd | None = None  #: USD, for the whole job
    allow_model_substitution: bool = False
    substitutes: tuple[str, ...] = ()  #: those models that the tenant may render, where they are allowed

    @property
    def places(self) -> tuple[str, ...]:
        """Who may render, in the order of the wish; ``auto`` is everybody remote who is not named."""
        if self.provider != AUTO:
            return (self.provider, *(self.fallback or ()))
        return (LOCAL, *(self.fallback or (AUTO,)))

    @property
    def may_fall_back(self) -> bool:
        """Whether another one may try after the first has failed."""
        return self.fallback != () if self.provider == AUTO else bool(self.fallback)

    @property
    def may_leave(self) -> bool:
        """Whether anybody but the farm's own workers may render."""
        return any(place != LOCAL for place in self.places)

    def with_substitutes(self, model: str, may_render: Callable[[str], bool]) -> Self:
        """The same wish with the models that may stand in for ``model``, if the caller allows any."""
        near = SUBSTITUTES.get(model, ()) if self.allow_model_substitution else ()
        return self.model_copy(update={"substitutes": tuple(slug for slug in near if may_render(slug))})

    def rank(self, provider: str) -> int | None:
        """Its place in the order; None: it is not wanted."""
        places = self.places
        if provider in places:
            return places.index(provider)
        return places.index(AUTO) if AUTO in places and provider != LOCAL else None


class Candidate(_Part):
    """One who was weighed; ``refused`` is why it is not taken, ``for_now`` that this may pass."""

    provider: str
    model: str
    price: Usd
    own_key: bool = False  #: the tenant's own, so that the farm charges nothing
    seconds: float | None = None  #: that its renders took lately, in the middle
    success: float | None = None  #: share of its attempts that went well lately
    score: float = 0.0  #: USD, with a little for the time; the lowest is taken
    rank: tuple[int, int, int] = (0, 0, 0)  #: failures in this job, substitution, place in the wish
    refused: str | None = None
    for_now: bool = False

    @property
    def charge(self) -> Decimal:
        """USD that the tenant is charged."""
        return Decimal(0) if self.own_key else self.price


class RoutePlan(_Part):
    """A choice with everything that was weighed for it; kept on the job and on each attempt."""

    wish: Wish
    candidates: tuple[Candidate, ...]
    choice: str | None = None

    @property
    def chosen(self) -> Candidate | None:
        """The candidate that was taken."""
        return next((one for one in self.candidates if one.provider == self.choice and one.refused is None), None)

    @property
    def may_leave(self) -> bool:
        """Whether a remote provider could ever render it."""
        return any(one.provider != LOCAL and (one.refused is None or one.for_now) for one in self.candidates)

    def others(self, provider: str) -> bool:
        """Whether a remote provider that has not failed yet is left beside this one."""
        return any(
            one.refused is None and one.provider not in (provider, LOCAL) and not one.rank[0] for one in self.candidates
        )

    def may_still_take_it(self, beside: str) -> bool:
        """Whether a remote provider beside this one could take it, now or when it is back."""
        return any(
            one.provider not in (beside, LOCAL) and (one.refused is None or one.for_now) for one in self.candidates
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFacts:
    """What is known of the farm's own workers; ``None`` seconds: nobody asked or nobody can say."""

    configured: bool
    workers: int = 0
    seconds_to_start: float | None = None
    price: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What is known of a provider; ``off`` is why its circuit breaker is open, empty when it is not."""

    off: str = ""
    seconds: float | None = None
    success: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known when a job is routed; providers are named by name, their figures by (provider, model)."""

    local: LocalFacts | None = None  #: None: local workers are not asked any more
    health: Mapping[tuple[str, str], Health] = field(default_factory=dict)
    own_keys: frozenset[str] = frozenset()
    failures: Mapping[str, int] = field(default_factory=dict)  #: in this job
    most_failures: int = 3  #: after so many a provider is not asked again
    spent: Decimal = Decimal(0)  #: USD that this job has cost already
    seconds_left: float | None = None  #: until the deadline


def weigh(request: RenderRequest, references: Sequence[Size], wish: Wish, remotes: Remotes, facts: Facts) -> RoutePlan:
    """Every candidate, the best first, and the choice: who can do it now, else who may be able to soon."""
    found = list(_candidates(request, tuple(references), wish, remotes, facts))
    found.sort(key=lambda one: (one.refused is not None, not one.for_now, one.rank, one.score))
    first = found[0] if found and (found[0].refused is None or found[0].for_now) else None
    return RoutePlan(wish=wish, candidates=tuple(found), choice=None if first is None else first.provider)


def refusal(plan: RoutePlan, model: str) -> NoRoute:
    """The error for a plan without a choice: every reason, so that the caller knows what to change."""
    reasons = " ".join(one.refused for one in plan.candidates if one.refused)
    wanted = ", ".join(plan.wish.places)
    return NoRoute(f"Nobody here can render this with {model} ({wanted}). {reasons}".strip(), param="provider")


def _candidates(
    request: RenderRequest, references: tuple[Size, ...], wish: Wish, remotes: Remotes, facts: Facts
) -> Iterator[Candidate]:
    if facts.local is not None and (rank := wish.rank(LOCAL)) is not None:
        yield _local(request, wish, facts, facts.local, rank)
    if not remotes.enabled:
        return
    models = (request.model, *wish.substitutes)
    for remote in remotes.values():
        rank = wish.rank(remote.name)
        if facts.failures and not wish.may_fall_back and remote.name not in facts.failures:
            continue  # the one that was chosen first is tried again, or nobody
        if rank is None or not (remote.is_configured or remote.name in facts.own_keys):
            if rank is not None and remote.name in wish.places:
                yield _unconfigured(request, remote, rank)
            continue
        for nearness, model in enumerate(models):
            yield _weighed(request, references, wish, facts, remote, model, (nearness, rank))


def _local(request: RenderRequest, wish: Wish, facts: Facts, local: LocalFacts, rank: int) -> Candidate:
    refused, for_now = None, False
    late = None not in (local.seconds_to_start, facts.seconds_left) and (
        (local.seconds_to_start or 0.0) > (facts.seconds_left or 0.0)
    )
    if not local.configured:
        refused = f"This farm has no weights of {request.model}."
    elif wish.max_cost is not None and facts.spent + local.price > wish.max_cost:
        refused = f"The farm's own render is estimated at {local.price} USD, above maxCost."
    elif not local.workers:
        refused, for_now = f"No live worker renders {request.model}.", True
    elif late:
        refused, for_now = "The local queue is too long for the deadline.", True
    return Candidate(
        provider=LOCAL,
        model=request.model,
        price=local.price,
        score=float(local.price),
        rank=(0, 0, rank),
        refused=refused,
        for_now=for_now,
    )


def _unconfigured(request: RenderRequest, remote: Remote, rank: int) -> Candidate:
    return Candidate(
        provider=remote.name,
        model=request.model,
        price=Decimal(0),
        rank=(0, 0, rank),
        refused=f"{remote.name} has no key, neither the farm's nor yours.",
    )


def _weighed(
    request: RenderRequest,
    references: tuple[Size, ...],
    wish: Wish,
    facts: Facts,
    remote: Remote,
    model: str,
    place: tuple[int, int],
) -> Candidate:
    health = facts.health.get((remote.name, model), Health())
    failures = facts.failures.get(remote.name, 0)
    seconds = UNKNOWN_SECONDS if health.seconds is None else health.seconds
    offer = remote.offer(model)
    price = Decimal(0) if offer is None else offer.price(request, references)
    refused = f"{remote.name} does not have {model}." if offer is None else offer.refusal(request)
    for_now = False
    if refused is None and wish.max_cost is not None and facts.spent + price > wish.max_cost:
        refused = f"{remote.name} costs {price} USD, above maxCost."
    if refused is None and failures >= facts.most_failures:
        refused = f"{remote.name} failed {failures} times at this job."
    if refused is None and health.off:
        refused, for_now = health.off, True
    return Candidate(
        provider=remote.name,
        model=model,
        price=price,
        own_key=remote.name in facts.own_keys,
        seconds=health.seconds,
        success=health.success,
        score=float(price) + SECOND * seconds / max(health.success or 1.0, 0.01),
        rank=(failures, *place),
        refused=refused,
        for_now=for_now,
    )
