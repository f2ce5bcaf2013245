"""Black Forest Labs' own API: a task, polled at the address of the cluster that owns it.

That address moves between hosts, so it is taken from the reply; but the key goes to no host that is not theirs. No
webhook is asked for: the reply would then name no address to poll, and the pictures are gone after ten minutes.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any, Final

import structlog

from fluxfarm.errors import (
    Moderated,
    OutcomeUnknown,
    ProviderAccount,
    ProviderBusy,
    ProviderError,
    ProviderFailed,
    ResultLost,
)
from fluxfarm.offers.bfl import TOTAL_MEGAPIXELS
from fluxfarm.sizes import MEGAPIXEL
from workers.providers.contract import Account, Call, Finished, RemotePicture, Running, Ticket
from workers.providers.failures import clean, poll_failure, reason_of, submit_failure, words
from workers.providers.pictures import LARGEST_REFERENCE, shrink, to_base64
from workers.providers.wire import Reply, Wire, may_carry_key, secret

KEY_HOSTS: Final = ("bfl.ai", ".bfl.ai")
USD_PER_CREDIT: Final = Decimal("0.01")
UNAVAILABLE: Final = 503
UNPROCESSABLE: Final = 422

RUNNING: Final = frozenset({"Pending", "Reasoning", "Generating"})
ENDS: Final[dict[str, type[ProviderError]]] = {
    "Request Moderated": Moderated,
    "Content Moderated": Moderated,
    "Task not found": ResultLost,
    "Error": ProviderFailed,
    "Failed": ProviderFailed,
}

log = structlog.get_logger()


class BflProvider:
    """Their hosted models; there is no [dev] among them."""

    name = "bfl"
    result_hosts: tuple[str, ...] = (".bfl.ai", "bfldeliveryprod.blob.core.windows.net")

    def __init__(self) -> None:
        self._wire = Wire(self.name)

    def submit(self, call: Call, account: Account) -> Ticket:
        """One endpoint generates and edits; ``cost`` in the reply is the truth about the price."""
        url = f"{account.base_url}/v1/{call.endpoint}"
        reply = self._wire.submit(url, _headers(account), json=_body(call))
        if not reply.fine:
            raise _submit_error(reply, account)
        found = reply.json()
        remote_id = found.get("id")
        if not isinstance(remote_id, str) or not remote_id:
            raise OutcomeUnknown(f"{words(self.name, reply, account)} It names no task.")
        poll_url = found.get("polling_url") or f"{account.base_url}/v1/get_result?id={remote_id}"
        if not isinstance(poll_url, str) or not may_carry_key(poll_url, account, KEY_HOSTS):
            raise OutcomeUnknown(f"bfl took the call as {remote_id[:80]} and names a strange host for its result.")
        return Ticket(remote_id=remote_id, poll_url=poll_url, cost=_usd(found.get("cost")))

    def poll(self, ticket: Ticket, account: Account) -> Running | Finished:
        """A state that nobody told us of counts as running, until the caller's patience ends."""
        reply = self._wire.ask("GET", ticket.poll_url, _headers(account))
        found = reply.json()
        state = found.get("status")
        if state in ENDS:  # "Task not found" may come with a 404
            raise _end(str(state), found, account)
        if not reply.fine or not isinstance(state, str):
            raise poll_failure(self.name, reply, account)
        if state == "Ready":
            return _finished(found, ticket)
        if state not in RUNNING:
            log.warning("unknown_state", provider=self.name, state=clean(state, account))
        progress = found.get("progress")
        return Running(progress=float(progress) if isinstance(progress, int | float) else None, state=state)

    def cancel(self, ticket: Ticket, account: Account) -> bool:  # noqa: ARG002 - the contract's arguments
        """There is no way to: the task is finished and charged."""
        return False


def _headers(account: Account) -> dict[str, str]:
    return {"x-key": secret(account)}


def _body(call: Call) -> dict[str, Any]:
    size = call.drawn
    body = call.fields() | {"width": size.width, "height": size.height, "output_format": call.offer.drawn_format}
    if call.references:
        room = (TOTAL_MEGAPIXELS * MEGAPIXEL - size.pixels) // len(call.references)
        for index, png in enumerate(call.references, 1):
            name = "input_image" if index == 1 else f"input_image_{index}"
            body[name] = to_base64(shrink(png, max_pixels=min(room, LARGEST_REFERENCE)))
    return body


def _submit_error(reply: Reply, account: Account) -> ProviderError:
    """A malformed key is answered with 422, and a 503 says that the task was not taken."""
    reason = reason_of(reply.json())
    if reply.status == UNPROCESSABLE and "api key" in reason.lower():
        return ProviderAccount(words("bfl", reply, account))
    if reply.status == UNAVAILABLE and reason:
        return ProviderBusy(words("bfl", reply, account), retry_after=reply.retry_after)
    return submit_failure("bfl", reply, account)


def _end(state: str, found: dict[str, Any], account: Account) -> ProviderError:
    details, result = found.get("details"), found.get("result")
    reason = clean(reason_of(details) or reason_of(result) or "no reason given", account)
    told = {
        "Request Moderated": "bfl refused the prompt or a reference for its content.",
        "Content Moderated": "bfl refused the picture that came out for its content.",
        "Task not found": "bfl does not know the task any more.",
    }
    return ENDS[state](told.get(state, f"The task failed at bfl: {reason}"))


def _finished(found: dict[str, Any], ticket: Ticket) -> Finished:
    result = found.get("result")
    url = result.get("sample") if isinstance(result, dict) else None
    if not isinstance(result, dict) or not isinstance(url, str):
        raise ResultLost(f"bfl finished {ticket.remote_id} without a picture.")
    seed, seconds = result.get("seed"), result.get("duration")
    return Finished(
        pictures=(RemotePicture(url=url, seed=seed if isinstance(seed, int) else None),),
        cost=Decimal(ticket.cost) if ticket.cost else None,
        seconds=float(seconds) if isinstance(seconds, int | float) else None,
    )


def _usd(credits_spent: object) -> str:
    """One credit is a cent; empty when the reply does not tell."""
    if not isinstance(credits_spent, int | float) or isinstance(credits_spent, bool):
        return ""
    try:
        usd = Decimal(str(credits_spent)) * USD_PER_CREDIT
    except InvalidOperation:
        return ""
    return str(usd) if usd.is_finite() and usd >= 0 else ""
