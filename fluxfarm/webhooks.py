"""Webhooks as Standard Webhooks 1.0.0 has them: the events, when a delivery is tried again, what an answer means.

The schedule is the specification's example: 10 attempts over 75 h 35 min 5 s. Only a 2xx is a success; a redirect is
not followed and counts as a failure; 410 says that nobody listens there any more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

from fluxfarm.errors import ForbiddenUrl, UnreachableUrl
from fluxfarm.jobs import JobState
from fluxfarm.outbound import PORTS, Clock, Outlet, parse_url

TEST_EVENT: Final = "test"
STARTED: Final = "job.started"  #: told only where it was asked for
EVENTS: Final = MappingProxyType(
    {JobState.SUCCESS: "job.succeeded", JobState.FAILED: "job.failed", JobState.CANCELED: "job.canceled"}
)
CAMPAIGN_DONE: Final = "campaign.done"  #: its last open job has ended; told again when more was asked for and is over
CAMPAIGN_CANCELLED: Final = "campaign.cancelled"  #: and nothing of it runs any more


class Form(StrEnum):
    """Whose words a webhook speaks, and how it is signed."""

    STANDARD = "standard"  #: Standard Webhooks 1.0.0, with the endpoint's own secret
    FAL = "fal"  #: fal's result, signed with the farm's Ed25519 key
    REPLICATE = "replicate"  #: a prediction, signed with the tenant's default secret


class Moment(StrEnum):
    """When a webhook is told of its job."""

    START = "start"
    END = "end"


@dataclass(frozen=True, slots=True)
class Telling:
    """How a job's endpoint wants to be told, and of what."""

    form: Form = Form.STANDARD
    moments: tuple[Moment, ...] = (Moment.END,)


STANDARD: Final = Telling()
STATES: Final = MappingProxyType({event: state for state, event in EVENTS.items()})

#: seconds before each attempt, counted from the one before it
SCHEDULE: Final = (0, 5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
JITTER: Final = 0.1  #: a delay is spread by this share to both sides
LONGEST_PAUSE: Final = 86_400.0  #: seconds; a longer Retry-After counts as this
THROTTLED: Final = frozenset({429, 502, 503, 504})  #: the receiver asks for patience
SHORTEST_PAUSE: Final = 5.0  #: seconds that a throttled endpoint rests when it does not say how long

MAX_URL: Final = 2000  #: characters, so that an index can hold it
MAX_BODY: Final = 20_000  #: bytes, by the specification
TIMEOUT: Final = 15.0  #: seconds for a whole exchange, from the DNS query to the head of the answer
RESOLVE_SECONDS: Final = 3.0  #: that a caller waits for a name to be looked up
OUTLET: Final = Outlet(limit_bytes=MAX_BODY, deadline_seconds=TIMEOUT)


def endpoint_url(text: str, outlet: Outlet = OUTLET) -> str:
    """The URL in one spelling, judged by its text alone.

    Raises:
        ForbiddenUrl: no https URL of a public host, or longer than 2,000 characters.
    """
    url = parse_url(text)
    outlet.check(url)
    if len(str(url)) > MAX_URL:
        raise ForbiddenUrl(f"The URL has {len(str(url)):,} characters; at most {MAX_URL:,} are taken.")
    return str(url)


def check_addresses(text: str, outlet: Outlet = OUTLET) -> None:
    """Look the host up, so that a private one is refused at once; a name that does not resolve now may do so later.

    Raises:
        ForbiddenUrl: an address of the host is not public. The sender checks each time again, when it connects.
    """
    url = parse_url(text)
    host = url.raw_host.decode("ascii")
    with suppress(UnreachableUrl):
        outlet.addresses(host, url.port or PORTS[url.scheme], Clock(RESOLVE_SECONDS, host))


def delay(tries: int, chance: float) -> float | None:
    """Seconds until the next attempt after ``tries`` of them failed; ``chance`` is in 0..1. None: it was the last."""
    if tries >= len(SCHEDULE):
        return None
    return SCHEDULE[tries] * (1 + JITTER * (2 * chance - 1))


def delivered(status: int) -> bool:
    """Whether the receiver has it."""
    return 200 <= status < 300  # noqa: PLR2004


def pause(status: int, retry_after: str | None, now: datetime) -> float:
    """Seconds that the receiver asks to be left alone, 0 when it does not; ``retry_after`` is its header as it came."""
    if status not in THROTTLED:
        return 0.0
    return min(LONGEST_PAUSE, max(SHORTEST_PAUSE, _seconds(retry_after or "", now)))


def _seconds(header: str, now: datetime) -> float:
    """``Retry-After``: whole seconds or a date (RFC 9110, 10.2.3); 0 for anything else."""
    text = header.strip()
    if text.isascii() and text.isdecimal() and len(text) < 12:  # noqa: PLR2004 - more digits are no wish, but a mistake
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    seconds = (moment - now).total_seconds()
    return max(0.0, float(math.ceil(seconds)))


def job_data(
    event: str, uuid: UUID, model: str, campaign: str, external_id: str | None, error: str | None
) -> dict[str, Any]:
    """What a job's event says: what happened to which job; neither the prompt nor a link."""
    data: dict[str, Any] = {"uuid": str(uuid), "status": STATES[event].value, "model": model}
    data |= {"campaign": campaign} if campaign else {}
    data |= {"externalId": external_id} if external_id is not None else {}
    return data | ({"error": error} if error is not None else {})


def campaign_data(
    event: str, id_: UUID, name: str, files: Mapping[JobState | None, int], spent: Decimal
) -> dict[str, Any]:
    """What the end of a campaign says: how its files stand when the message is sent, drafts among them; USD spent."""
    counts = {state.value.lower(): files.get(state, 0) for state in JobState}
    return {
        "id": str(id_),
        "campaign": name,
        "state": event.removeprefix("campaign."),
        "files": {"total": sum(files.values()), **counts},
        "spent": str(spent),
    }
