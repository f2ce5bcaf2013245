"""The client's side of campaigns: ``client.campaigns``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

import httpx

from fluxfarm.bucket import Bucket
from fluxfarm.campaigns.files import Loaded, load
from fluxfarm.campaigns.record import AssetRecord, CampaignRecord, Plan
from fluxfarm.campaigns.review_record import Masters, Said, Share, Verdict
from fluxfarm.campaigns.source import as_json
from fluxfarm.campaigns.uploading import Uploaded, upload
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

    def deliver(self, name: str, bucket: Bucket, *, only: str = "auto") -> Uploaded:
        """Write the chosen files and their manifests into a bucket of your own; the farm sees neither it nor its key.

        Raises:
            StoreUnavailable: the download or an upload broke off; the same again goes on from the start.
        """
        with TemporaryDirectory(prefix="fluxfarm-") as folder:
            archive = Path(folder) / "campaign.zip"
            self.export(name, archive, only=only)
            return upload(archive, bucket)

    def contact_sheet(self, name: str, target: Path, *, only: str = "auto", page: int = 1) -> int:
        """Write the pictures small with their names, as PDF or, one page of thirty, as PNG; gives its length."""
        kind = "pdf" if target.suffix.lower() == ".pdf" else "png"
        asked = {"only": only} | ({"page": page} if kind == "png" else {})
        body = self._transport.get(f"{_path(name)}/contact-sheet.{kind}", asked).content
        return target.write_bytes(body)

    # --- people --------------------------------------------------------------------------------------------------

    def review(
        self,
        name: str,
        files: Sequence[str],
        verdict: Verdict,
        *,
        comment: str = "",
        author: str = "",
        prompt: str | None = None,
        seed: int | None = None,
    ) -> int:
        """Approve, reject, comment on or regenerate files by their names; how many. All of them or none."""
        body: dict[str, object] = {"files": list(files), "verdict": verdict.value, "comment": comment, "author": author}
        body |= {key: value for key, value in (("prompt", prompt), ("seed", seed)) if value is not None}
        return int(self._transport.post(f"{_path(name)}/reviews", body).json()["reviewed"])

    def reviews(self, name: str, file: str | None = None) -> Iterator[Said]:
        """Everything that was said, or what was said of one file, the oldest first."""
        cursor: int | None = None
        while True:
            params = {"file": file, "cursor": cursor, "limit": PAGE}
            reply = self._transport.get(f"{_path(name)}/reviews", params)
            yield from read_rows(Said, reply)
            cursor = reply.json().get("nextCursor")
            if cursor is None:
                return

    def masters(self, name: str, picks: Sequence[str] = (), placements: Sequence[str] = ()) -> Masters:
        """Render picked pictures in full, or every approved draft; at their own placement or at each of these."""
        reply = self._transport.post(f"{_path(name)}/masters", {"picks": list(picks), "placements": list(placements)})
        return read_model(Masters, reply)

    def share(self, name: str, expires_at: datetime, *, only: str = "auto") -> Share:
        """A link that shows the files to whoever has it; its ``url`` is told this once."""
        body = {"expiresAt": expires_at.isoformat(), "only": only}
        return read_model(Share, self._transport.post(f"{_path(name)}/shares", body))

    def shares(self, name: str) -> Sequence[Share]:
        """The links of a campaign, the newest first."""
        return read_rows(Share, self._transport.get(f"{_path(name)}/shares"))

    def revoke_share(self, name: str, id_: UUID | str) -> None:
        """Close a link at once."""
        self._transport.send("DELETE", f"{_path(name)}/shares/{quote(str(id_), safe='')}")


def _record(reply: httpx.Response) -> CampaignRecord:
    return read_model(CampaignRecord, reply, "campaign")


def _path(name: str) -> str:
    return f"/v1/campaigns/{quote(name, safe='')}"
