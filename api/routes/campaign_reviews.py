"""What people do with a campaign's pictures: look, judge, ask for another one, pick."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from api.auth import Secret, allowed, owner
from api.bodies import JsonBody, parse_json
from api.creation import Making
from api.errors import problems
from api.farm import FarmPart
from api.replies import reply
from api.review import REGENERATE, Word, make_masters, say
from api.routes.campaigns import Name
from api.strict import PLAIN, Strict, read
from fluxfarm.campaigns.review_record import Masters, Said
from fluxfarm.errors import InvalidField
from fluxfarm.request import MAX_PROMPT_CHARACTERS, MAX_SEED
from fluxfarm.scopes import Scope
from storage.repository import campaign_reviews, campaigns, tenants

MOST: Final = 1_000  #: files of one call
router = APIRouter(prefix="/v1/campaigns/{name}", tags=["campaigns"])

File = Annotated[str, Field(min_length=1, max_length=400)]


class Review(Strict):
    """One word on some files."""

    files: list[File] = Field(min_length=1, max_length=MOST, description="Their names in the campaign.")
    verdict: Literal["approve", "reject", "comment", "regenerate", "withdraw"] = Field(
        description=(
            "`regenerate` renders anew: with this prompt, or this seed, or else a new seed. `withdraw` takes the last "
            "verdict back: the file is open again."
        )
    )
    comment: str = Field("", max_length=2_000)
    author: str = Field("", max_length=200, description="Who says so; else the id of the key.")
    prompt: str | None = Field(None, max_length=MAX_PROMPT_CHARACTERS)
    seed: int | None = Field(None, ge=0, le=MAX_SEED)


class Picks(Strict):
    """Which pictures are rendered in full."""

    picks: list[File] = Field(default_factory=list, max_length=MOST, description="Left out: every approved draft.")
    placements: list[File] = Field(
        default_factory=list, max_length=200, description="Names of the campaign's placements, presets or sizes."
    )


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Reviewed(_Part):
    """How many files it was said of."""

    reviewed: int


class History(_Part):
    """What was said, the oldest first."""

    data: list[Said]
    next_cursor: int | None = Field(description="Give it as `cursor` to go on; null: the end.")


def _body(schema: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"requestBody": {"required": True, "content": content}}


@router.post(
    "/reviews",
    operation_id="reviewAssets",
    responses={200: {"model": Reviewed}, **problems(400, 401, 403, 404, 409, 413, 415)},
    openapi_extra=_body("Review"),
)
def review(farm: FarmPart, secret: Secret, creation: Making, name: Name, body: JsonBody) -> Response:
    """Approve, reject, comment on or regenerate files; all of them or none."""
    owner(farm, secret, Scope.CAMPAIGNS)  # whoever has no key is told so, whatever is in the body
    asked = read(Review, parse_json(body))
    if asked.verdict != REGENERATE and (asked.prompt is not None or asked.seed is not None):
        raise InvalidField("prompt and seed go with the verdict 'regenerate' only.", param="verdict")
    word = Word(
        files=tuple(dict.fromkeys(asked.files)),
        verdict=asked.verdict,
        comment=asked.comment,
        author=asked.author,
        prompt=asked.prompt,
        seed=asked.seed,
    )
    return say(farm, creation, body, name, word, lambda count: reply(Reviewed(reviewed=count)))


@router.get("/reviews", operation_id="listReviews", responses={200: {"model": History}, **problems(400, 401, 403, 404)})
def history(
    farm: FarmPart,
    secret: Secret,
    name: Name,
    file: Annotated[
        str | None, Query(max_length=400, pattern=PLAIN, description="Only what was said of this file.")
    ] = None,
    cursor: Annotated[int, Query(ge=0, le=2**62)] = 0,
    limit: Annotated[int, Query(ge=1, le=MOST)] = 100,
) -> Response:
    """List what was said; nothing is ever changed or forgotten."""
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.READ)
        campaign = campaigns.read(session, key.tenant_id, name)
        found = campaign_reviews.history(session, campaign.id, name=file, after=cursor, limit=limit)
    data = [
        Said(
            id=one.id,
            file=one.name,
            job=one.job_uuid,
            verdict=one.verdict,
            comment=one.comment,
            author=one.author,
            created_at=one.created_at,
        )
        for one in found
    ]
    return reply(History(data=data, next_cursor=found[-1].id if len(found) == limit else None))


@router.post(
    "/masters",
    operation_id="makeMasters",
    responses={200: {"model": Masters}, **problems(400, 401, 403, 404, 409, 410, 413, 415)},
    openapi_extra=_body("Picks"),
)
def masters(farm: FarmPart, secret: Secret, creation: Making, name: Name, body: JsonBody) -> Response:
    """Render picked pictures in full, with the same prompt and seed, at one or many placements."""
    creation.enter(Scope.CAMPAIGNS, body)
    asked = read(Picks, parse_json(body))
    found = make_masters(farm, secret, name, list(dict.fromkeys(asked.picks)), asked.placements)
    return creation.close(reply(Masters(made=found.made, existing=found.existing)))
