"""One paid call in the air: its ticket, its polls, its pictures; what it does to the record is one step at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, TypeVar
from uuid import UUID

import structlog
from PIL.Image import Image

from fluxfarm.errors import (
    OutcomeUnknown,
    ProviderBusy,
    ProviderError,
    ProviderFailed,
    ResultLost,
    Unavailable,
    UnreachableUrl,
)
from fluxfarm.tracing import OFF, Span
from workers.downloads import download, redraw
from workers.leases import Held
from workers.providers.contract import Account, Finished, Provider, RemotePicture, Running, Ticket

FIRST_POLL: Final = 0.5  #: seconds
SLOWER: Final = 1.5  #: each poll waits so much longer than the one before
SLOWEST: Final = 5.0  #: seconds
DOWNLOADS: Final = 3  #: tries for one picture
DOWNLOAD_PAUSE: Final = 1.0  #: seconds

Answer = TypeVar("Answer")
log = structlog.get_logger()


@dataclass(slots=True)
class Flight:
    """A call that has a ticket, or that came back at once; ``images`` are its pictures' numbers in the job."""

    nonce: UUID
    images: tuple[int, ...]
    provider: Provider
    account: Account
    price: Decimal
    ticket: Ticket | None = None
    begun: float = field(default_factory=time.monotonic)
    pause: float = FIRST_POLL
    due: float = field(default_factory=lambda: time.monotonic() + FIRST_POLL)
    answered: float = field(default_factory=time.monotonic)
    progress: float = 0.0
    finished: Finished | None = None
    pictures: dict[int, tuple[Image, int | None]] = field(default_factory=dict)
    first_byte: float | None = None
    error: ProviderError | None = None
    span: Span = OFF

    @property
    def is_over(self) -> bool:
        """Whether its pictures are here, or never will be."""
        return self.finished is not None or self.error is not None

    @property
    def cost(self) -> Decimal:
        """USD: what the provider reported, else its price."""
        reported = self.finished.cost if self.finished is not None else None
        return self.price if reported is None else reported

    def poll(self, *, timeout: float, patience: float) -> None:
        """Ask how it stands.

        Raises:
            ResultLost: the provider has not answered for ``patience`` seconds.
            OutcomeUnknown: it has not ended within ``timeout`` seconds and cannot be stopped.
            ProviderError: the end of a call that went badly.
        """
        assert self.ticket is not None
        try:
            found = self.provider.poll(self.ticket, self.account)
        except ProviderBusy as error:
            self._wait(error.retry_after)
            if time.monotonic() - self.answered > patience:
                message = f"{self.provider.name} took the call and stopped answering; it is counted as paid."
                raise ResultLost(message) from error
            return
        self.answered = time.monotonic()
        if isinstance(found, Finished):
            self.finished = found
        elif time.monotonic() - self.begun > timeout:
            self._give_up(timeout)
        else:
            self._note(found)

    def _note(self, found: Running) -> None:
        self.progress = max(self.progress, min(found.progress or 0.0, 1.0))
        self._wait(None)

    def _wait(self, asked: float | None) -> None:
        self.due = time.monotonic() + max(self.pause, asked or 0.0)
        self.pause = min(self.pause * SLOWER, SLOWEST)

    def _give_up(self, timeout: float) -> None:
        assert self.ticket is not None
        if self.provider.cancel(self.ticket, self.account):
            raise ProviderFailed(f"{self.provider.name} did not end within {timeout:g} s; the call was taken back.")
        raise OutcomeUnknown(f"{self.provider.name} did not end within {timeout:g} s and cannot take the call back.")

    def fetch(self, held: Held, width: int, height: int) -> None:
        """Get the pictures of a finished call, at the exact size.

        Raises:
            ResultLost: they cannot be had; the call is paid.
            Canceled, LeaseLost: the job is no longer ours.
        """
        assert self.finished is not None
        if len(self.finished.pictures) < len(self.images):
            raise ResultLost(f"{self.provider.name} made {len(self.finished.pictures)} of {len(self.images)} pictures.")
        for n, picture in zip(self.images, self.finished.pictures, strict=False):
            body = self._patiently(held, lambda picture=picture: self._body(picture))  # type: ignore[misc]
            self.first_byte = self.first_byte or time.monotonic()
            drawn = self._patiently(held, lambda body=body: redraw(body, width, height))  # type: ignore[misc]
            self.pictures[n] = (drawn, picture.seed)

    def _body(self, picture: RemotePicture) -> bytes:
        return download(picture, self.provider.result_hosts, self.account.base_url)

    def _patiently(self, held: Held, call: Callable[[], Answer]) -> Answer:
        for left in reversed(range(DOWNLOADS)):
            try:
                return call()
            except (UnreachableUrl, Unavailable) as error:
                log.warning("download_failed", provider=self.provider.name, left=left, code=error.code)
                reason = error.message
            held.pause(DOWNLOAD_PAUSE)
        raise ResultLost(f"The picture of {self.provider.name} could not be fetched: {reason}")
