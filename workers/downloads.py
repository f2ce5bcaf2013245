"""Results of remote providers: fetched from the provider's own hosts only, looked at, redrawn, brought to size."""

from __future__ import annotations

import io
import ipaddress
from typing import Final

import httpx
from PIL import Image, ImageOps

from fluxfarm.errors import ForbiddenUrl, InvalidReference, ResultLost
from fluxfarm.outbound import IPAddress, fetch, is_public, parse_url
from storage.pictures import sanitise
from workers.providers.contract import RemotePicture

LARGEST: Final = 64 * 2**20  #: bytes
SECONDS: Final = 60.0  #: for one picture, from the DNS query to the last byte


def download(picture: RemotePicture, hosts: tuple[str, ...], base_url: str) -> bytes:
    """The bytes of a result; the provider's key is never sent along.

    Raises:
        ResultLost: it lies on a host that is not the provider's.
        UnreachableUrl: it did not come; it may be asked for again.
    """
    if picture.body is not None:
        return picture.body
    try:
        url = parse_url(picture.url or "")
        local = _is_loopback(base_url)
        if not any(_fits(url.host, host) for host in hosts) and not (local and _is_loopback(str(url))):
            raise ResultLost(f"The result lies on {url.host[:80]}, which is not the provider's.")
        return fetch(
            str(url),
            limit_bytes=LARGEST,
            deadline_seconds=SECONDS,
            allow_http=local,
            allowed_ports=(url.port or 80,) if local else None,
            policy=_on_loopback if local else is_public,
        ).body
    except ForbiddenUrl as error:
        raise ResultLost(error.message) from error


def redraw(body: bytes, width: int, height: int) -> Image.Image:
    """The picture at exactly this size: scaled until it covers it, the rest cropped evenly.

    Raises:
        ResultLost: it is no picture.
        Unavailable: too many are being read at the moment.
    """
    try:
        png = sanitise(body).png
    except InvalidReference as error:
        raise ResultLost(f"The provider's result is no picture that can be used: {error.message}") from error
    with Image.open(io.BytesIO(png), formats=["PNG"]) as opened:
        picture = opened.convert("RGB")
    return (
        picture if picture.size == (width, height) else ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
    )


def _fits(host: str, allowed: str) -> bool:
    return host == allowed or (allowed.startswith(".") and (host.endswith(allowed) or host == allowed[1:]))


def _is_loopback(url: str) -> bool:
    """A plain http URL of this machine: only a deployment's own settings can name one as a provider."""
    parsed = httpx.URL(url)
    if parsed.scheme != "http":
        return False
    try:
        return parsed.host == "localhost" or ipaddress.ip_address(parsed.host).is_loopback
    except ValueError:
        return False


def _on_loopback(address: IPAddress) -> bool:
    return address.is_loopback
