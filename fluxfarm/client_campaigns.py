"""The client's side of campaigns: ``client.campaigns``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx

from fluxfarm.campaigns.files import Loaded, load
from fluxfarm.campaigns.record import AssetRecord, CampaignRecord, Plan
from fluxfarm.campaigns.source import as_json
from fluxfarm.client_replies import read_model, read_rows
from fluxfarm.client_transport import Transport
from fluxfarm.errors import InvalidCampaign, StoreUnavailable

PAGE: Final = 500  #: files in one reply
CREATION: Final = 120.0  #: seconds that thousands of jobs may take to be stored
OUTAGE: Final = 30.0  #: seconds without the farm that a look lives through


class Campaigns:
    """Campaigns of one farm; a campaign is named by its name or its id."""

    def __init__(self, transport: Transport, upload: Callable[[Path], str]) -> None:
        """Made by the client; ``upload`` keeps a file at the farm and gives its id."""
        self._transport = transport
        self._upload = upload

    def plan(self, campaign: Path | Mapping[str, Any]) -> Plan:
        """What the campaign of a file, or of a document as the API takes it, would do; nothing is made.

        Raises:
            InvalidCampaign: with line and column in the file.
        """
        return read_model(Plan, self._send(campaign, {"dryRun": "true"}), "plan")

    def run(self, campaign: Path | Mapping[str, Any], *, start: bool = True) -> CampaignRecord:
        """Make the campaign; the same one again makes no second one, and this shows the first.

        Raises:
            InvalidCampaign: with line and column in the file.
            CampaignExists: another campaign has its name.
        """
        return _record(self._send(campaign, {"start": "true" if start else "false"}))

    def _send(self, campaign: Path | Mapping[str, Any], params: Mapping[str, str]) -> httpx.Response:
        if not isinstance(campaign, Path):
            return self._post(campaign, params)
        loaded: Loaded = load(campaign)
        try:
            return self._post(as_json(loaded.with_uploads(self._upload)), params)
        except InvalidCampaign as error:
            raise loaded.told(error) from None

    def _post(self, document: Mapping[str, Any], params: Mapping[str, str]) -> httpx.Response:
        # By name and content the call is idempotent: it may be repeated when the connection breaks.
        return self._transport.repeat("/v1/campaigns", document, params=params, timeout=CREATION)

    def get(self, name: str) -> CampaignRecord:
        """The campaign as it stands now."""
        return _record(self._transport.get(_path(name), patience=OUTAGE))

    def list(self) -> Iterator[CampaignRecord]:
        """Every campaign, the newest first."""
        cursor: str | None = None
        while True:
            reply = self._transport.get("/v1/campaigns", {"limit": 100, "cursor": cursor})
            yield from read_rows(CampaignRecord, reply)
            cursor = reply.json().get("nextCursor")
            if cursor is None:
                return

    def pause(self, name: str) -> CampaignRecord:
        """Hold it back: jobs in flight finish, nothing new starts."""
        return _record(self._transport.post(f"{_path(name)}/pause"))

    def resume(self, name: str) -> CampaignRecord:
        """Let it run on."""
        return _record(self._transport.post(f"{_path(name)}/resume"))

    def cancel(self, name: str) -> CampaignRecord:
        """End it for good: jobs in flight finish."""
        return _record(self._transport.post(f"{_path(name)}/cancel"))

    def retry(self, name: str) -> int:
        """Try the failed jobs again; how many."""
        return int(self._transport.post(f"{_path(name)}/retry").json()["retried"])

    def set_budget(self, name: str, budget: Decimal | None) -> CampaignRecord:
        """Change what it may cost while it runs; None: no limit of its own."""
        body = {"budget": None if budget is None else str(budget)}
        return _record(self._transport.patch(_path(name), body))

    def assets(self, name: str, **wanted: object) -> Iterator[AssetRecord]:
        """Every file that fits ``status``, ``drafts`` and ``verdict``, page after page."""
        cursor: int | None = None
        while True:
            params = {**wanted, "limit": PAGE, "cursor": cursor}
            reply = self._transport.get(f"{_path(name)}/assets", params)
            yield from read_rows(AssetRecord, reply)
            cursor = reply.json().get("nextCursor")
            if cursor is None:
                return

    def export(self, name: str, target: Path, *, only: str = "auto") -> int:
        """Write the ZIP of the chosen files; gives its length. ``target`` appears when it is whole.

        Raises:
            StoreUnavailable: the download broke off.
        """
        part = target.with_name(f"{target.name}.part")
        try:
            with part.open("wb") as out, self._transport.stream(f"{_path(name)}/export.zip?only={only}", {}) as reply:
                for piece in reply.iter_bytes():
                    out.write(piece)
                size, told = out.tell(), reply.headers.get("content-length")
            if told is not None and int(told) != size:
                raise StoreUnavailable(f"The download broke off after {size:,} of {int(told):,} bytes.")
            part.replace(target)
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)
        return size


def _record(reply: httpx.Response) -> CampaignRecord:
    return read_model(CampaignRecord, reply, "campaign")


def _path(name: str) -> str:
    return f"/v1/campaigns/{quote(name, safe='')}"
