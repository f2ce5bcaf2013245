"""The LoRA files that a job may name."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from api.auth import Secret, allowed
from api.errors import problems
from api.farm import FarmPart
from api.replies import reply
from fluxfarm.airecord import Moment
from fluxfarm.loras import kept
from fluxfarm.scopes import Scope
from storage.repository import tenants

router = APIRouter(prefix="/v1/loras", tags=["models"])


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, from_attributes=True)


class LoraReply(_Part):
    """A LoRA; whether it fits a model shows when it is rendered with."""

    name: str = Field(description="What `promptObject.loras` calls it.")
    size_bytes: int
    modified_at: Moment


class LoraPage(_Part):
    """Those of the farm's folder, by name."""

    data: list[LoraReply]


@router.get("", operation_id="listLoras", responses={200: {"model": LoraPage}, **problems(401, 403)})
def list_loras(farm: FarmPart, secret: Secret) -> Response:
    """List the LoRAs."""
    with farm.database.transaction() as session:
        allowed(tenants.authenticate(session, secret), Scope.READ)
    return reply(LoraPage(data=[LoraReply.model_validate(one) for one in kept(farm.settings.loras)]))
