"""fal: submit to its queue, poll the addresses that it gives back, fetch the result from a third one."""

from __future__ import annotations

from typing import Any, Final

from fluxfarm.errors import (
    Moderated,
    OutcomeUnknown,
    ProviderBusy,
    ProviderError,
    ProviderFailed,
    ProviderRefused,
    ResultLost,
)
from fluxfarm.inbound import usual_ticket
from workers.providers.contract import Account, Call, Finished, RemotePicture, Running, Ticket
from workers.providers.failures import clean, poll_failure, submit_failure, words
from workers.providers.pictures import from_base64, shrink, to_data_uri
from workers.providers.wire import LARGE_REPLY, Reply, Wire, may_carry_key, secret

KEY_HOSTS: Final = ("queue.fal.run", ".fal.run")
POLICY: Final = "content_policy_violation"
_INVALID: Final = frozenset({400, 422})

# ``error_type`` of its infrastructure. A call that ends so was not charged; those of the first set pass by themselves.
_BUSY: Final = frozenset(
    {
        "request_timeout",
        "startup_timeout",
        "runner_scheduling_failure",
        "runner_connection_timeout",
        "runner_disconnected",
        "runner_connection_refused",
        "runner_connection_error",
        "runner_incomplete_response",
    }
)
_FAILED: Final = frozenset({"runner_server_error", "internal_error", "client_disconnected", "client_cancelled"})


class FalProvider:
    """Every FLUX.2 model of fal."""

    name = "fal"
    result_hosts: tuple[str, ...] = (".fal.media",)

    def __init__(self) -> None:
        self._wire = Wire(self.name)

    def submit(self, call: Call, account: Account) -> Ticket:
        """POST to the full id; from then on only the addresses of the reply count."""
        headers = _headers(account) | {
            "x-fal-no-retry": "1",  # the farm has one layer of retries, its own
            "x-fal-object-lifecycle-preference": '{"expiration_duration_seconds":3600}',
        }
        hook = {"fal_webhook": call.webhook_url} if call.webhook_url else {}
        url = f"{account.base_url}/{call.endpoint}"
        reply = self._wire.submit(url, headers, params=hook, json=_body(call))
        found = reply.json()
        remote_id = found.get("request_id")
        if not reply.fine:
            raise _submit_error(reply, account)
        if not isinstance(remote_id, str) or not remote_id:
            raise OutcomeUnknown(f"{words(self.name, reply, account)} It names no request.")
        return _ticket(remote_id, found, account, call.endpoint)

    def poll(self, ticket: Ticket, account: Account) -> Running | Finished:
        """The status; once it is COMPLETED, which says nothing of success, the result."""
        reply = self._wire.ask("GET", ticket.poll_url, _headers(account))
        found = reply.json()
        if not reply.fine:
            raise poll_failure(self.name, reply, account)
        state = str(found.get("status", ""))
        if state != "COMPLETED":
            return Running(state=state)
        if found.get("error") or found.get("error_type"):
            raise self._failure(found, ticket, account)
        metrics = found.get("metrics")
        seconds = metrics.get("inference_time") if isinstance(metrics, dict) else None
        return self._result(ticket, account, seconds)

    def _failure(self, found: dict[str, Any], ticket: Ticket, account: Account) -> ProviderError:
        """Why a COMPLETED call failed. Without a type only the result's own error tells what was moderated."""
        if not found.get("error_type"):
            reply = self._wire.ask("GET", ticket.result_url, _headers(account), limit=LARGE_REPLY)
            if isinstance(reply.json().get("detail"), list):
                return _result_error(reply, account)
        return _completed_error(found, account)

    def cancel(self, ticket: Ticket, account: Account) -> bool:
        """Best effort: what runs already may run to its end, and be charged."""
        reply = self._wire.ask("PUT", ticket.cancel_url, _headers(account))
        return reply.json().get("status") in {"OK", "CANCELLATION_REQUESTED"}

    def _result(self, ticket: Ticket, account: Account, seconds: object) -> Finished:
        reply = self._wire.ask("GET", ticket.result_url, _headers(account), limit=LARGE_REPLY)
        if not reply.fine:
            raise _result_error(reply, account)
        found = reply.json()
        images = found.get("images")
        if not isinstance(images, list) or not images:
            raise ResultLost(f"{self.name} completed {ticket.remote_id} without a picture.")
        flags = found.get("has_nsfw_concepts")
        if isinstance(flags, list) and any(flags):
            raise Moderated(f"{self.name} blanked the picture: its checker found it not safe.")
        seed = found.get("seed")
        pictures = tuple(_picture(image, seed if index == 0 else None) for index, image in enumerate(images))
        return Finished(pictures=pictures, seconds=float(seconds) if isinstance(seconds, int | float) else None)


def _headers(account: Account) -> dict[str, str]:
    return {"authorization": f"Key {secret(account)}"}


def _body(call: Call) -> dict[str, Any]:
    size = call.drawn
    body = call.fields() | {
        "image_size": {"width": size.width, "height": size.height},
        "output_format": call.offer.drawn_format,
    }
    if len(call.seeds) > 1:
        body["num_images"] = len(call.seeds)
    if call.references:
        body["image_urls"] = [to_data_uri(shrink(png)) for png in call.references]
    return body


def _ticket(remote_id: str, found: dict[str, Any], account: Account, endpoint: str) -> Ticket:
    """The addresses of the reply, which are not those of the submit; the usual ones where it names none."""
    ticket = usual_ticket("fal", account.base_url, endpoint, remote_id)
    for field, name in (("poll_url", "status_url"), ("result_url", "response_url"), ("cancel_url", "cancel_url")):
        ticket[field] = str(found.get(name) or ticket[field])
        if not may_carry_key(ticket[field], account, KEY_HOSTS):
            raise OutcomeUnknown(f"fal took the call as {remote_id[:80]} and names a strange host for its result.")
    return Ticket(**ticket)


def _picture(image: object, seed: object) -> RemotePicture:
    url = image.get("url") if isinstance(image, dict) else None
    drawn = seed if isinstance(seed, int) else None
    body = from_base64(url) if isinstance(url, str) and url.startswith("data:") else None
    if body is None and not isinstance(url, str):
        raise ResultLost("fal names no address for a picture.")
    return RemotePicture(body=body, url=None if body else url, seed=drawn)


def _submit_error(reply: Reply, account: Account) -> ProviderError:
    return _detail(reply, account) or _typed(reply, account) or submit_failure("fal", reply, account)


def _result_error(reply: Reply, account: Account) -> ProviderError:
    """The model's own error comes with its status on the result; without a known form the poll may be repeated."""
    found = _detail(reply, account) or _typed(reply, account)
    if found is None and reply.status in _INVALID:
        found = ProviderRefused(words("fal", reply, account))
    return poll_failure("fal", reply, account) if found is None else _end(found)


def _detail(reply: Reply, account: Account) -> ProviderError | None:
    """A model error: a list under ``detail``, whose ``type`` counts, never its ``msg``."""
    detail = reply.json().get("detail")
    if not isinstance(detail, list):
        return None
    kinds = {str(item.get("type", "")) for item in detail if isinstance(item, dict)}
    told = words("fal", reply, account)
    if POLICY in kinds:
        return Moderated(told)
    again = reply.headers.get("x-fal-retryable", reply.headers.get("x-fal-needs-retry", ""))
    if again.lower() in {"true", "1"} or reply.status >= 500:  # noqa: PLR2004
        return ProviderFailed(told)
    return ProviderRefused(told)


def _typed(reply: Reply, account: Account) -> ProviderError | None:
    """An infrastructure error: its type stands in the body, in a header, or in both."""
    kind = str(reply.json().get("error_type") or reply.headers.get("x-fal-error-type", ""))
    told = words("fal", reply, account, "" if reply.json() else kind)
    ours = reply.headers.get("x-fal-request-timeout-type", "").lower() == "user"
    if kind in _FAILED or (kind in _BUSY and ours):
        return ProviderFailed(told)
    if kind in _BUSY:
        return ProviderBusy(told, retry_after=reply.retry_after)
    return ProviderRefused(told) if kind == "bad_request" else None


def _completed_error(found: dict[str, Any], account: Account) -> ProviderError:
    kind, error = str(found.get("error_type") or ""), found.get("error")
    told = f"fal completed the call with an error: {clean(str(error or kind), account)}"
    if kind == POLICY:
        return Moderated(told)
    return ProviderRefused(told) if kind == "bad_request" else ProviderFailed(told)


def _end(error: ProviderError) -> ProviderError:
    """As the end of a call ``ProviderBusy`` would read as: poll again. What is over is over."""
    return ProviderFailed(error.message) if isinstance(error, ProviderBusy) else error
