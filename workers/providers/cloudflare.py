"""Cloudflare Workers AI: one POST that answers with the picture; multipart even for a prompt alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from fluxfarm.errors import (
    Moderated,
    OutcomeUnknown,
    ProviderAccount,
    ProviderBusy,
    ProviderError,
    ProviderFailed,
    ProviderRefused,
    ResultLost,
)
from workers.providers.contract import Account, Call, Finished, RemotePicture, Running, Ticket
from workers.providers.failures import CONTENT, submit_failure, words
from workers.providers.pictures import from_base64, shrink
from workers.providers.wire import LARGE_REPLY, SYNC_SECONDS, Reply, Wire, bearer

DAY_USED_UP: Final = 3036  #: comes as a 429, but no backoff helps before 00:00 UTC

#: ``errors[0].code``, which says more than the status
CODES: Final[dict[int, type[ProviderError]]] = {
    3040: ProviderBusy,  # out of capacity
    3007: ProviderBusy,  # timeout
    3008: ProviderBusy,  # aborted
    3006: ProviderRefused,  # too large
    3003: ProviderRefused,  # incomplete
    5004: ProviderRefused,  # invalid data
    5007: ProviderRefused,  # no such model
    3042: ProviderRefused,  # no such model
    5005: ProviderRefused,  # method
    5019: ProviderRefused,  # method
    DAY_USED_UP: ProviderAccount,
    4006: ProviderAccount,  # the same, as it is told elsewhere
    3023: ProviderAccount,
    3041: ProviderAccount,
    5016: ProviderAccount,
    5018: ProviderAccount,
    5035: ProviderAccount,  # needs Workers Paid
    10000: ProviderAccount,  # authentication
}


class CloudflareProvider:
    """Synchronous: a submit gives the end."""

    name = "cloudflare"
    result_hosts: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._wire = Wire(self.name)

    def submit(self, call: Call, account: Account) -> Finished:
        """Send the form and read the picture out of the envelope."""
        url = f"{account.base_url}/accounts/{account.account_id}/ai/run/{call.endpoint}"
        reply = self._wire.submit(url, bearer(account), files=_form(call), seconds=SYNC_SECONDS, limit=LARGE_REPLY)
        envelope = reply.json()
        if not reply.fine or envelope.get("success") is False:
            raise _error(reply, envelope, account)
        result = envelope.get("result")
        body = from_base64(result.get("image")) if isinstance(result, dict) else None
        if not envelope:
            raise OutcomeUnknown(f"{words(self.name, reply, account)} Its reply cannot be read.")
        if body is None:
            raise ResultLost("cloudflare answered without a picture.")
        return Finished(pictures=(RemotePicture(body=body, seed=call.fields().get("seed")),))

    def poll(self, ticket: Ticket, account: Account) -> Running | Finished:  # noqa: ARG002 - the contract's arguments
        """Nothing is ever left to poll.

        Raises:
            ResultLost: always.
        """
        raise ResultLost("cloudflare keeps no results.")

    def cancel(self, ticket: Ticket, account: Account) -> bool:  # noqa: ARG002 - the contract's arguments
        """There is no way to."""
        return False


def _form(call: Call) -> list[tuple[str, tuple[Any, ...]]]:
    """Every field as a part: ``data=`` alone would be sent urlencoded."""
    size = call.drawn
    fields = call.fields() | {"width": size.width, "height": size.height}
    parts: list[tuple[str, tuple[Any, ...]]] = [(name, (None, str(value))) for name, value in fields.items()]
    for index, png in enumerate(call.references):
        small = shrink(png, max_side=call.offer.reference_side)
        parts.append((f"input_image_{index}", (f"{index}.png", small, "image/png")))
    return parts


def _error(reply: Reply, envelope: dict[str, Any], account: Account) -> ProviderError:
    errors = envelope.get("errors")
    first = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else {}
    code = first.get("code")
    kind = CODES.get(code) if isinstance(code, int) else None
    told = words("cloudflare", reply, account, f"{code} {first.get('message', '')}" if first else "")
    if CONTENT.search(told):
        return Moderated(told)
    if kind is None:
        if reply.fine:
            return ProviderFailed(told)
        return submit_failure("cloudflare", reply, account)
    if kind is ProviderAccount and code in {DAY_USED_UP, 4006}:
        return ProviderAccount(told, retry_after=_until_midnight(datetime.now(UTC)))
    return kind(told, retry_after=reply.retry_after if kind is ProviderBusy else None)


def _until_midnight(now: datetime) -> float:
    """Seconds to the next 00:00 UTC, when the free day begins anew."""
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight - now).total_seconds()
