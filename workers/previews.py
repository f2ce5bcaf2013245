"""Encodes previews and sends them, in a thread of its own: the device never waits for either."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Semaphore
from typing import Final

import structlog
from PIL.Image import Image

from fluxfarm.errors import FluxfarmError
from storage.previews import Preview, Previews
from storage.repository.turns import Claim
from workers.encoding import encode
from workers.pipeline_previews import OnPreview

BACKLOG: Final = 8  #: previews that wait to be sent; one more is dropped
QUALITY: Final = 60

log = structlog.get_logger()


class PreviewSender:
    """One for a worker process."""

    def __init__(self, previews: Previews) -> None:
        """``previews`` is this one's to close."""
        self._previews = previews
        self._pool = ThreadPoolExecutor(1, "previews")
        self._room = Semaphore(BACKLOG)

    def for_job(self, claim: Claim) -> OnPreview | None:
        """Where the previews of a drawing go; None: the job asked for none."""
        if not claim.request.previews:
            return None

        def show(n: int, index: int, step: int, image: Image) -> None:
            if self._room.acquire(blocking=False):
                self._pool.submit(self._send, claim, (n, index, step), image)
            else:
                log.info("preview_dropped", job=str(claim.uuid))

        return show

    def _send(self, claim: Claim, place: tuple[int, int, int], image: Image) -> None:
        n, index, step = place
        try:
            encoded = encode(
                image,
                output_format=claim.request.output_format,
                quality=QUALITY,
                width=image.width,
                height=image.height,
            )
            preview = Preview(
                attempt=claim.attempt,
                n=n,
                index=index,
                step=step,
                steps=claim.request.steps,
                content_type=encoded.content_type,
                body=encoded.body,
            )
            self._previews.put(claim.uuid, preview)
        except FluxfarmError as error:
            log.info("preview_dropped", job=str(claim.uuid), error=error.code)
        finally:
            self._room.release()

    def close(self) -> None:
        """Send what waits, and give the connection back."""
        self._pool.shutdown()
        self._previews.close()
