"""1min.ai: an asset upload for the one reference, then one call that answers with an aiRecord."""

from __future__ import annotations

from typing import Any, Final

from fluxfarm.errors import Moderated, OutcomeUnknown, ProviderBusy, ProviderError, ProviderFailed, ResultLost
from fluxfarm.jobs import JobType
from fluxfarm.sizes import Size
from workers.providers.contract import Account, Call, Finished, RemotePicture, Running, Ticket
from workers.providers.failures import CONTENT, submit_failure, words
from workers.providers.pictures import shrink
from workers.providers.wire import SYNC_SECONDS, Reply, Wire, secret

UPLOAD_SECONDS: Final = 60.0


class OneminProvider:
    """Synchronous: a submit gives the end."""

    name = "onemin"
    result_hosts: tuple[str, ...] = (".1min.ai", "s3.us-east-1.amazonaws.com")

    def __init__(self) -> None:
        self._wire = Wire(self.name)

    def submit(self, call: Call, account: Account) -> Finished:
        """Upload the reference, which costs nothing; then the one paid POST."""
        headers = {"api-key": secret(account)}
        prompt_object = call.fields() | _shape(call)
        if call.references:
            prompt_object["imageUrl"] = self._upload(shrink(call.references[0]), headers, account)
        kind = JobType.IMAGE_EDITOR if call.references else JobType.IMAGE_GENERATOR
        body = {"type": kind, "model": call.endpoint, "promptObject": prompt_object}
        reply = self._wire.submit(f"{account.base_url}/api/features", headers, json=body, seconds=SYNC_SECONDS)
        if not reply.fine:
            raise _error(submit_failure(self.name, reply, account))
        return _finished(reply, account, prompt_object.get("seed"))

    def poll(self, ticket: Ticket, account: Account) -> Running | Finished:  # noqa: ARG002 - the contract's arguments
        """Nothing is ever left to poll.

        Raises:
            ResultLost: always.
        """
        raise ResultLost("onemin has no call that tells of a result later.")

    def cancel(self, ticket: Ticket, account: Account) -> bool:  # noqa: ARG002 - the contract's arguments
        """There is no way to."""
        return False

    def _upload(self, png: bytes, headers: dict[str, str], account: Account) -> str:
        """The path of the asset, which stands for the picture in ``imageUrl``."""
        files = {"asset": ("reference.png", png, "image/png")}
        url = f"{account.base_url}/api/assets"
        reply = self._wire.ask("POST", url, headers, files=files, seconds=UPLOAD_SECONDS)
        content, asset = reply.json().get("fileContent"), reply.json().get("asset")
        path = content.get("path") if isinstance(content, dict) else None
        path = path or (asset.get("key") if isinstance(asset, dict) else None)
        if not reply.fine or not isinstance(path, str):
            found = submit_failure(self.name, reply, account)
            raise ProviderBusy(found.message) if isinstance(found, OutcomeUnknown) else found
        return path


def _shape(call: Call) -> dict[str, str]:
    """Ratio and, where there is a choice, area; pixels are not taken."""
    shape = call.offer.shape(Size(call.width, call.height))
    if shape is None:
        call.drawn  # noqa: B018 - raises, and says why
        return {}
    return {"aspect_ratio": shape.ratio} | ({"megapixels": shape.area} if len(call.offer.areas) > 1 else {})


def _error(found: ProviderError) -> ProviderError:
    """No error is documented: the status counts, and words about the content."""
    refused = not isinstance(found, OutcomeUnknown) and CONTENT.search(found.message)
    return Moderated(found.message) if refused else found


def _finished(reply: Reply, account: Account, seed: Any) -> Finished:
    """``temporaryUrl`` stands in the record in one of their samples, beside its detail in another."""
    record = reply.json().get("aiRecord")
    if not isinstance(record, dict):
        raise OutcomeUnknown(f"{words('onemin', reply, account)} Its reply cannot be read.")
    state = record.get("status")
    if state != "SUCCESS":
        told = f"onemin ended the call as {str(state)[:40]}."
        if state in {"FAILED", "ERROR"}:
            raise ProviderFailed(told)
        raise OutcomeUnknown(told)
    detail = record.get("aiRecordDetail")
    places = (record, reply.json(), detail if isinstance(detail, dict) else {})
    url = next((place["temporaryUrl"] for place in places if isinstance(place.get("temporaryUrl"), str)), None)
    if not url:
        raise ResultLost("onemin finished without an address of the picture.")
    return Finished(pictures=(RemotePicture(url=url, seed=seed),))
