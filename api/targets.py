"""Who is told of a job's end: a webhook endpoint by its id, or a URL, which becomes an endpoint on first use."""

from __future__ import annotations

import base64
import secrets
from typing import Final

from api.farm import Farm
from fluxfarm.errors import BadRequest
from fluxfarm.webhooks import check_addresses, endpoint_url
from storage.repository.endpoints import PREFIX

FIELD: Final = "webhook"
SECRET_BYTES: Final = 32  #: the specification takes 24 to 64


def new_secret() -> str:
    """A signing secret as Standard Webhooks spells it."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode("ascii")


def read_target(farm: Farm, text: str | None) -> str | None:
    """The id as it is, or the URL in one spelling.

    Raises:
        ForbiddenUrl: by its text alone.
    """
    return text if text is None or is_id(text) else checked_url(farm, text, FIELD)


def is_id(target: str) -> bool:
    """Whether an endpoint that exists is meant, and no URL."""
    return target.startswith(PREFIX)


def checked_url(farm: Farm, text: str, field: str) -> str:
    """The URL in one spelling.

    Raises:
        ForbiddenUrl: by its text alone.
    """
    try:
        return endpoint_url(text, farm.outlet)
    except BadRequest as error:
        error.param = field
        raise


def look_up(farm: Farm, text: str, field: str) -> None:
    """Refuse a host that is private now; it may take seconds, so never inside a transaction.

    Raises:
        ForbiddenUrl: an address of it is not public.
    """
    try:
        check_addresses(text, farm.outlet)
    except BadRequest as error:
        error.param = field
        raise
