"""Any images API of the OpenAI shape: JSON to ``generations``, a form to ``edits``; the reply holds the pictures.

Two services answer later instead: AIgateway with a 202 and a job to poll, another Fluxfarm, when its own patience
ends, with an error that names the job. Both are polled at ``/v1/jobs/{id}``.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any, Final

import httpx

from fluxfarm.errors import (
    Moderated,
    OutcomeUnknown,
    ProviderAccount,
    ProviderBusy,
    ProviderError,
    ProviderFailed,
    ResultLost,
)
from fluxfarm.offers import KINDS
from workers.providers.contract import Account, Call, Finished, RemotePicture, Running, Ticket
from workers.providers.failures import CONTENT, clean, poll_failure, reason_of, submit_failure, words
from workers.providers.pictures import from_base64, shrink, to_data_uri
from workers.providers.wire import LARGE_REPLY, SYNC_SECONDS, Reply, Wire, bearer

NOT_YET: Final = 304  #: AIgateway, when it is asked more often than every 3 s
SIDES: Final = "width, height"
PARTS: Final = frozenset({"image", "image[]"})  #: of a form; references under another name go as data URIs in JSON

#: the code or the type in ``error``; both spellings of a service are looked at in small letters
CODES: Final[dict[str, type[ProviderError]]] = {
    "moderation_blocked": Moderated,
    "content_policy_violation": Moderated,
    "image_generation_user_error": Moderated,
    "moderated": Moderated,
    "insufficient_quota": ProviderAccount,
    "insufficient_credits": ProviderAccount,
    "insufficient_balance": ProviderAccount,
    "authentication_failed": ProviderAccount,
    "authentication_error": ProviderAccount,
    "all_providers_exhausted": ProviderBusy,
    "upstream_unavailable": ProviderBusy,
    "service_unavailable": ProviderBusy,
    "rate_limited": ProviderBusy,
    "rate_limit_error": ProviderBusy,
    "generation_failed": ProviderFailed,
    "server_error": ProviderFailed,
    "conflict_error": ProviderFailed,
}


class OpenAIProvider:
    """A named endpoint; its name tells its habits where it is one of ``KINDS``."""

    def __init__(self, name: str, base_url: str = "") -> None:
        """Results may lie on the host of ``base_url`` too."""
        self.name = name
        habits = KINDS.get(name, KINDS["openai"])
        own = httpx.URL(base_url).host if base_url else ""
        self.result_hosts: tuple[str, ...] = (*habits.result_hosts, *((own,) if own else ()))
        self._wire = Wire(name)

    def submit(self, call: Call, account: Account) -> Ticket | Finished:
        """The one paid POST. The nonce goes along as ``Idempotency-Key``, which Fluxfarm heeds."""
        headers = bearer(account) | {"idempotency-key": str(call.nonce)}
        fields = _fields(call)
        name = call.offer.parameters["images"].target
        content: dict[str, Any] = {"json": fields}
        path = "generations"
        if call.references and name in PARTS:
            path, content = "edits", {"files": _form(fields, name, call.references)}
        elif call.references:
            content = {"json": fields | {name: [to_data_uri(shrink(png)) for png in call.references]}}
        url = f"{account.base_url}/images/{path}"
        reply = self._wire.submit(url, headers, seconds=SYNC_SECONDS, limit=LARGE_REPLY, **content)
        found = reply.json()
        if not reply.fine:
            later = _still_rendering(found)
            if later:
                return _ticket(later, account)
            raise _error(self.name, reply, account)
        job = found.get("id")
        if "data" not in found and found.get("object") == "job" and isinstance(job, str):
            return _ticket(job, account)
        if not isinstance(found.get("data"), list):
            raise OutcomeUnknown(f"{words(self.name, reply, account)} Its reply cannot be read.")
        seed = fields.get("seed")
        return Finished(pictures=_pictures(self.name, found["data"], seed), cost=_cost(found.get("aiRecord")))

    def poll(self, ticket: Ticket, account: Account) -> Running | Finished:
        """AIgateway's job, or another Fluxfarm's record."""
        reply = self._wire.ask("GET", ticket.poll_url, bearer(account))
        if reply.status == NOT_YET:
            return Running()
        if not reply.fine:
            raise poll_failure(self.name, reply, account)
        found = reply.json()
        record = found.get("aiRecord")
        told = record if isinstance(record, dict) else found
        state = str(told.get("status", ""))
        word = state.lower()
        if word in {"completed", "success"}:
            return Finished(pictures=_files(self.name, told), cost=_cost(record))
        if word in {"failed", "cancelled", "canceled"}:
            raise _job_error(self.name, word, told, account)
        return Running(state=state)

    def cancel(self, ticket: Ticket, account: Account) -> bool:
        """Ask both kinds in the same way."""
        return self._wire.ask("POST", ticket.cancel_url, bearer(account)).fine


def _fields(call: Call) -> dict[str, Any]:
    size = call.drawn
    in_sides = call.offer.parameters["size"].target == SIDES
    sized: dict[str, Any] = {"width": size.width, "height": size.height} if in_sides else {"size": str(size)}
    return call.fields() | {"model": call.endpoint, "n": len(call.seeds)} | sized


def _form(fields: dict[str, Any], name: str, references: tuple[bytes, ...]) -> list[tuple[str, tuple[Any, ...]]]:
    def text(value: Any) -> str:
        return str(value).lower() if isinstance(value, bool) else str(value)

    parts: list[tuple[str, tuple[Any, ...]]] = [(key, (None, text(value))) for key, value in fields.items()]
    pictures = [(name, (f"{n}.png", shrink(png), "image/png")) for n, png in enumerate(references)]
    return [*parts, *pictures]


def _ticket(job: str, account: Account) -> Ticket:
    root = account.base_url.removesuffix("/openai/v1")
    url = f"{root if root.endswith('/v1') else root + '/v1'}/jobs/{job}"
    return Ticket(remote_id=job, poll_url=url, cancel_url=f"{url}/cancel")


def _still_rendering(found: dict[str, Any]) -> str:
    error = found.get("error")
    late = isinstance(error, dict) and error.get("type") == "timeout_error"
    job = error.get("job_id") if isinstance(error, dict) and late else None
    return job if isinstance(job, str) else ""


def _error(name: str, reply: Reply, account: Account) -> ProviderError:
    """The code in the envelope says more than the status; a 5xx without one leaves the outcome open."""
    found = reply.json()
    error = found.get("error")
    told = words(name, reply, account)
    envelope = error if isinstance(error, dict) else found
    for key in ("code", "type"):
        kind = CODES.get(str(envelope.get(key) or "").lower())
        if kind is not None:
            return kind(told, retry_after=reply.retry_after)
    if reply.status < 500 and CONTENT.search(reason_of(found)):  # noqa: PLR2004
        return Moderated(told)
    return submit_failure(name, reply, account)


def _job_error(name: str, state: str, told: dict[str, Any], account: Account) -> ProviderError:
    error = told.get("error")
    reason = clean(reason_of(error) or "no reason given", account)
    code = str(error.get("code") or "").lower() if isinstance(error, dict) else ""
    kind = Moderated if CODES.get(code) is Moderated or CONTENT.search(reason) else ProviderFailed
    return kind(f"The job {state} at {name}: {reason}")


def _pictures(name: str, data: list[Any], seed: Any) -> tuple[RemotePicture, ...]:
    if not data:
        raise ResultLost(f"{name} answered without a picture.")
    return tuple(_picture(name, item, seed if index == 0 else None) for index, item in enumerate(data))


def _picture(name: str, item: Any, seed: Any) -> RemotePicture:
    found = item if isinstance(item, dict) else {}
    body = from_base64(found.get("b64_json"))
    url = found.get("url")
    if body is None and isinstance(url, str) and url.startswith("data:"):
        body = from_base64(url)
    if body is None and not isinstance(url, str):
        raise ResultLost(f"{name} answered without a picture.")
    return RemotePicture(body=body, url=None if body else url, seed=seed)


def _files(name: str, told: dict[str, Any]) -> tuple[RemotePicture, ...]:
    """``result.file_url`` of a job, ``temporaryUrls`` of a record."""
    result = told.get("result")
    urls = [result.get("file_url")] if isinstance(result, dict) else told.get("temporaryUrls")
    if not isinstance(urls, list) or not urls or not all(isinstance(url, str) for url in urls):
        raise ResultLost(f"{name} finished without an address of the picture.")
    return tuple(RemotePicture(url=url) for url in urls)


def _cost(record: Any) -> Decimal | None:
    """USD that another Fluxfarm says it charged."""
    try:
        cost = Decimal(str(record["cost"])) if isinstance(record, dict) else None
    except (InvalidOperation, KeyError):
        return None
    return cost if cost is not None and cost.is_finite() and cost >= 0 else None
