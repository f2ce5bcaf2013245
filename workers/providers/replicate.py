"""Replicate: a prediction is created, then asked for until it is over."""

from __future__ import annotations

import re
from typing import Any, Final

from fluxfarm.errors import Moderated, OutcomeUnknown, ProviderBusy, ProviderError, ProviderFailed, ResultLost
from fluxfarm.inbound import usual_ticket
from fluxfarm.sizes import Size
from workers.providers.contract import Account, Call, Finished, RemotePicture, Running, Ticket
from workers.providers.failures import CONTENT, clean, poll_failure, submit_failure, words
from workers.providers.pictures import from_base64, shrink, to_data_uri
from workers.providers.wire import LARGE_REPLY, Reply, Wire, bearer, may_carry_key

KEY_HOSTS: Final = ("api.replicate.com",)
LARGEST_INLINE: Final = 256 * 1024  #: bytes of a data URI; larger references are uploaded first, as Replicate advises
SPELLING: Final = {"jpeg": "jpg"}
STOPPED: Final = frozenset({"canceled", "aborted"})
RESET: Final = re.compile(r"resets in ~?(\d{1,4})\s*s")  #: stands in the words of a 429 without Retry-After


class ReplicateProvider:
    """Every FLUX.2 model of Black Forest Labs there."""

    name = "replicate"
    result_hosts: tuple[str, ...] = ("replicate.delivery", ".replicate.delivery")

    def __init__(self) -> None:
        self._wire = Wire(self.name)

    def submit(self, call: Call, account: Account) -> Ticket:
        """Create the prediction; it is never waited for in the POST."""
        body: dict[str, Any] = {"input": self._input(call, account)}
        if call.webhook_url:
            body |= {"webhook": call.webhook_url, "webhook_events_filter": ["completed"]}
        url = f"{account.base_url}/models/{call.endpoint}/predictions"
        reply = self._wire.submit(url, bearer(account), json=body)
        if not reply.fine:
            raise _submit_error(reply, account)
        found = reply.json()
        remote_id, urls = found.get("id"), found.get("urls")
        if not isinstance(remote_id, str) or not remote_id:
            raise OutcomeUnknown(f"{words(self.name, reply, account)} It names no prediction.")
        ticket = usual_ticket(self.name, account.base_url, call.endpoint, remote_id)
        for field, name in (("poll_url", "get"), ("cancel_url", "cancel")):
            ticket[field] = str((urls if isinstance(urls, dict) else {}).get(name) or ticket[field])
            if not may_carry_key(ticket[field], account, KEY_HOSTS):
                told = f"replicate took the call as {remote_id[:80]} and names a strange host for its result."
                raise OutcomeUnknown(told)
        return Ticket(**ticket)

    def poll(self, ticket: Ticket, account: Account) -> Running | Finished:
        """Only a final status counts: an output may be there before."""
        reply = self._wire.ask("GET", ticket.poll_url, bearer(account), limit=LARGE_REPLY)
        found = reply.json()
        state = found.get("status")
        if not reply.fine or not isinstance(state, str):
            raise poll_failure(self.name, reply, account)
        if state == "succeeded":
            return _finished(found, ticket)
        if state == "failed":
            raise _prediction_error(found, account)
        if state in STOPPED:
            raise ProviderFailed(f"The prediction was {state} at replicate.")
        return Running(state=state)

    def cancel(self, ticket: Ticket, account: Account) -> bool:
        """What runs already is charged for the time that it ran."""
        reply = self._wire.ask("POST", ticket.cancel_url, bearer(account))
        return reply.fine and reply.json().get("status") in STOPPED | {"starting", "processing"}

    def _input(self, call: Call, account: Account) -> dict[str, Any]:
        picture_format = call.offer.drawn_format
        fields = call.fields() | {"output_format": SPELLING.get(picture_format, picture_format)} | _size(call)
        if call.references:
            name = call.offer.parameters["images"].target
            fields[name] = [self._reference(shrink(png), account) for png in call.references]
        return fields

    def _reference(self, png: bytes, account: Account) -> str:
        uri = to_data_uri(png)
        if len(uri) <= LARGEST_INLINE:
            return uri
        files = {"content": ("reference.png", png, "image/png")}
        reply = self._wire.ask("POST", f"{account.base_url}/files", bearer(account), files=files, seconds=60)
        urls = reply.json().get("urls")
        url = urls.get("get") if isinstance(urls, dict) else None
        if not reply.fine or not isinstance(url, str):
            found = submit_failure(self.name, reply, account)
            raise ProviderBusy(found.message) if isinstance(found, OutcomeUnknown) else found
        return url


def _size(call: Call) -> dict[str, Any]:
    size = call.drawn
    if not call.offer.ratios:
        return {"aspect_ratio": "custom", "width": size.width, "height": size.height}
    shape = call.offer.shape(Size(call.width, call.height))
    return {} if shape is None else {"aspect_ratio": shape.ratio, "output_megapixels": shape.area}


def _submit_error(reply: Reply, account: Account) -> ProviderError:
    found = submit_failure("replicate", reply, account)
    reset = RESET.search(found.message)
    if isinstance(found, ProviderBusy) and found.retry_after is None and reset:
        return ProviderBusy(found.message, retry_after=float(reset[1]))
    return found


def _prediction_error(found: dict[str, Any], account: Account) -> ProviderError:
    told = clean(str(found.get("error") or "no reason given"), account)
    kind = Moderated if CONTENT.search(told) else ProviderFailed
    return kind(f"The prediction failed at replicate: {told}")


def _finished(found: dict[str, Any], ticket: Ticket) -> Finished:
    """``output`` is a string for dev, pro and flex, a list of strings for klein."""
    output = found.get("output")
    urls = [output] if isinstance(output, str) else output
    if found.get("data_removed") or not isinstance(urls, list) or not urls:
        raise ResultLost(f"replicate removed the result of {ticket.remote_id}.")
    metrics, asked = found.get("metrics"), found.get("input")
    seconds = metrics.get("predict_time") if isinstance(metrics, dict) else None
    seed = asked.get("seed") if isinstance(asked, dict) else None
    return Finished(
        pictures=tuple(_picture(url, seed) for url in urls),
        seconds=float(seconds) if isinstance(seconds, int | float) else None,
        revision=str(found.get("version") or ""),
    )


def _picture(url: object, seed: object) -> RemotePicture:
    drawn = seed if isinstance(seed, int) else None
    if not isinstance(url, str):
        raise ResultLost("replicate names no address for a picture.")
    body = from_base64(url) if url.startswith("data:") else None
    return RemotePicture(body=body, url=None if body else url, seed=drawn)
