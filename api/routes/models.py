"""The catalogue: which models there are, what may be asked of each, and whether it is served here now.

One reply serves the farm's own callers and OpenAI's clients, who read ``id``, ``object``, ``created``, ``owned_by``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from api.auth import Secret, allowed
from api.errors import problems
from api.farm import Farm, FarmPart
from api.replies import reply
from api.routes.providers import list_price
from fluxfarm.airecord import Usd
from fluxfarm.catalog import MODELS, GuidanceKind, ModelProfile, Range, find_model
from fluxfarm.jobs import JobType
from fluxfarm.offers import Behaviour, Offer
from fluxfarm.remotes import Remote
from fluxfarm.scopes import Scope
from storage.database import Session
from storage.queue import local_queue
from storage.repository import tenants, workers

router = APIRouter(prefix="/v1/models", tags=["models"])


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Limits(_Part):
    """What a number may be, ends included."""

    low: float
    high: float
    default: float


class SizeRules(_Part):
    """What sizes may be; sides in pixels, area in pixels."""

    min_side: int
    max_side: int
    max_pixels: int
    max_aspect: float
    default_width: int
    default_height: int


class ModelReply(_Part):
    """A model."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="The release, in seconds since 1970; 0 when it is not known.")
    owned_by: str = Field(alias="owned_by")
    name: str
    summary: str
    licence: str
    commercial: bool = Field(description="Whether the licence of the weights lets the results be sold.")
    aliases: list[str]
    local: bool = Field(description="This farm is configured to render it.")
    ready: bool = Field(description="A live worker renders it.")
    steps: Limits
    guidance: Limits
    guidance_kind: GuidanceKind
    sizes: SizeRules
    max_images: int
    max_references: int
    max_sequence_length: int = Field(description="Tokens of the prompt that the model reads.")
    default_format: str
    default_quality: int
    released: str


class TreatmentReply(_Part):
    """What becomes of a parameter: `passthrough`, `renamed`, `converted`, `emulated` by the farm, or `ignored`."""

    behaviour: Behaviour
    target: str = Field(description="The provider's own name or form of it.")


class OfferReply(_Part):
    """What a remote provider makes of the model."""

    provider: str
    configured: bool = Field(description="This farm has a key for it.")
    endpoints: dict[JobType, str]
    price: Usd | None = Field(description="USD of one picture at the usual size and steps.")
    price_source: str
    min_side: int
    max_side: int
    max_references: int
    formats: list[str] = Field(description="That it makes itself; the others are made by the farm.")
    extras: list[str] = Field(description="Its own fields, which a promptObject may have where it may render the job.")
    parameters: dict[str, TreatmentReply]


class ModelDetail(ModelReply):
    """A model, and what each remote provider does with each parameter."""

    providers: list[OfferReply]


class ModelPage(_Part):
    """Every model of the catalogue."""

    object: Literal["list"] = "list"
    data: list[ModelReply]


@router.get(
    "",
    name="listModels",
    responses={200: {"model": ModelPage}, **problems(401, 403)},
)
def list_models(farm: FarmPart, secret: Secret) -> Response:
    """List the models."""
    with farm.database.transaction() as session:
        allowed(tenants.authenticate(session, secret), Scope.READ)
        found = served(session)
    return reply(ModelPage(data=[model(farm, profile, found) for profile in MODELS]))


@router.get(
    "/{id:path}",
    name="readModel",
    responses={200: {"model": ModelDetail}, **problems(401, 403, 404)},
)
def read_model(farm: FarmPart, secret: Secret, id: str) -> Response:  # noqa: A002 - the name in the path
    """Read a model by its slug or an alias."""
    with farm.database.transaction() as session:
        allowed(tenants.authenticate(session, secret), Scope.READ)
        found = served(session)
    return reply(detail(farm, find_model(id), found))


def served(session: Session) -> set[str]:
    """The queues that a live worker takes from."""
    return {queue for worker in workers.alive(session) for queue in worker.queues}


def detail(farm: Farm, profile: ModelProfile, served: set[str]) -> ModelDetail:
    """A model with what each provider does with it."""
    offers = [
        _offer(remote, offer) for remote in farm.remotes.values() if (offer := remote.offer(profile.slug)) is not None
    ]
    return ModelDetail(**model(farm, profile, served).model_dump(), providers=offers)


def _offer(remote: Remote, offer: Offer) -> OfferReply:
    return OfferReply(
        provider=remote.name,
        configured=remote.is_configured,
        endpoints=dict(offer.endpoints),
        price=list_price(offer),
        price_source=offer.price_source,
        min_side=offer.sizes.min_side,
        max_side=offer.sizes.max_side,
        max_references=offer.max_references,
        formats=list(offer.formats),
        extras=sorted(offer.extras),
        parameters={
            name: TreatmentReply(behaviour=one.behaviour, target=one.target) for name, one in offer.parameters.items()
        },
    )


def _limits(found: Range) -> Limits:
    return Limits(low=found.low, high=found.high, default=found.default)


def model(farm: Farm, profile: ModelProfile, served: set[str]) -> ModelReply:
    """A model, and whether it is served here now."""
    sizes = profile.sizes
    return ModelReply(
        id=profile.slug,
        created=int(datetime.fromisoformat(f"{profile.released}T00:00:00Z").timestamp()) if profile.released else 0,
        owned_by=profile.slug.partition("/")[0],
        name=profile.name,
        summary=profile.summary,
        licence=profile.licence,
        commercial=profile.commercial,
        aliases=list(profile.aliases),
        local=any(source.slug in (profile.slug, *profile.aliases) for source in farm.settings.models),
        ready=local_queue(profile.slug) in served,
        steps=_limits(profile.steps),
        guidance=_limits(profile.guidance),
        guidance_kind=profile.guidance_kind,
        sizes=SizeRules(
            min_side=sizes.min_side,
            max_side=sizes.max_side,
            max_pixels=sizes.max_pixels,
            max_aspect=sizes.max_aspect,
            default_width=profile.default_size.width,
            default_height=profile.default_size.height,
        ),
        max_images=profile.max_images,
        max_references=profile.max_references,
        max_sequence_length=profile.max_sequence_length,
        default_format=profile.default_format,
        default_quality=profile.default_quality,
        released=profile.released,
    )
