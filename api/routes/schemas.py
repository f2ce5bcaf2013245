"""Schemas for editors and programs; they are the same for everybody, and need no key."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from api.errors import problems
from fluxfarm.campaigns.source import published_schema

router = APIRouter(prefix="/schemas", tags=["schemas"])


@router.get("/campaign.json", operation_id="campaignSchema", responses=problems())
async def campaign_schema() -> dict[str, Any]:
    """Read the JSON Schema of a campaign's specification."""
    return published_schema()
