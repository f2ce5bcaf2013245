"""A bucket of the customer's own, written to with the customer's own key: one PUT a file, signed with Signature V4.

The key is used here and nowhere else: it never reaches a farm. The hash of each file is part of its signature, so a
file arrives whole or not at all. After https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Self
from urllib.parse import quote

import httpx
from pydantic import SecretStr

from fluxfarm import __version__
from fluxfarm.errors import Forbidden, InvalidField, NotFound, StoreUnavailable
from fluxfarm.settings import Settings

TRIES: Final = 4
PAUSE: Final = 0.5  #: seconds before the second try; doubles
TIMEOUT: Final = httpx.Timeout(60.0, connect=10.0)
_PLACE: Final = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?")
_CODE: Final = re.compile(rb"<Code>(\w{1,80})</Code>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Where files go: ``prefix`` ends with a slash or is empty."""

    name: str
    prefix: str
    url: str  #: of the bucket, without a slash at the end
    region: str
    key_id: str
    secret: SecretStr
    token: SecretStr

    @classmethod
    def of(cls, place: str, settings: Settings) -> Self:
        """``s3://bucket/prefix``, with the key of the environment.

        Raises:
            InvalidField: not such a place, or no key.
        """
        found = _PLACE.fullmatch(place)
        parts = (found[2] or "").strip("/").split("/") if found is not None else [".."]
        if found is None or {".", ".."} & set(parts) or not "".join(parts).isprintable():
            raise InvalidField(f"{place[:200]!r} is no place in a bucket; write s3://bucket/prefix.", param="to")
        if not (settings.aws_access_key_id and settings.aws_secret_access_key.get_secret_value()):
            message = "The bucket needs your own key: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            raise InvalidField(message, param="to")
        own = settings.aws_endpoint_url.rstrip("/")
        if "." in found[1]:  # AWS's certificate holds for one label before the region's host
            own = own or f"https://s3.{settings.aws_region}.amazonaws.com"
        prefix = "/".join(filter(None, parts))
        return cls(
            name=found[1],
            prefix=f"{prefix}/" if prefix else "",
            url=f"{own}/{found[1]}" if own else f"https://{found[1]}.s3.{settings.aws_region}.amazonaws.com",
            region=settings.aws_region,
            key_id=settings.aws_access_key_id,
            secret=settings.aws_secret_access_key,
            token=settings.aws_session_token,
        )

    def __str__(self) -> str:
        return f"s3://{self.name}/{self.prefix}"

    def put(self, client: httpx.Client, name: str, body: bytes, content_type: str) -> None:
        """Write one file; writing it again changes nothing.

        Raises:
            Forbidden: the bucket refuses the key.
            NotFound: there is no such bucket.
            InvalidField: it is in another region.
            StoreUnavailable: it did not answer, or was busy, in four tries.
        """
        path = "/".join(quote(part, safe="") for part in (self.prefix + name).split("/"))
        url = httpx.URL(f"{self.url}/{path}")
        for left in reversed(range(TRIES)):
            try:
                reply = client.put(url, content=body, headers=self._signed(url, body) | {"content-type": content_type})
            except httpx.TransportError as error:
                why, reply = type(error).__name__, None
            if reply is not None:
                if reply.is_success:
                    return
                self._raise(reply)
                why = str(reply.status_code)
            if left:
                time.sleep(PAUSE * 2 ** (TRIES - 1 - left))
        raise StoreUnavailable(f"{self} took no file in {TRIES} tries ({why}).")

    def _raise(self, reply: httpx.Response) -> None:
        """Raise what another try cannot mend."""
        found = _CODE.search(reply.content[:10_000])
        code = found[1].decode() if found is not None else str(reply.status_code)
        region = reply.headers.get("x-amz-bucket-region", "")
        if region and region != self.region:
            raise InvalidField(f"The bucket {self.name} is in {region[:40]}: set AWS_REGION to it.", param="to")
        if reply.status_code in (401, 403):
            raise Forbidden(f"The bucket {self.name} refuses the key ({code}).")
        if reply.status_code == 404:  # noqa: PLR2004
            raise NotFound(f"There is no bucket {self.name} ({code}).")
        if reply.status_code < 500 and reply.status_code not in (408, 409, 429):  # noqa: PLR2004
            raise InvalidField(f"The bucket {self.name} takes no file ({code}).", param="to")

    def _signed(self, url: httpx.URL, body: bytes) -> dict[str, str]:
        now = datetime.now(UTC)
        moment, day = f"{now:%Y%m%dT%H%M%SZ}", f"{now:%Y%m%d}"
        digest = hashlib.sha256(body).hexdigest()
        token = self.token.get_secret_value()
        headers = {"host": url.netloc.decode(), "x-amz-content-sha256": digest, "x-amz-date": moment}
        headers |= {"x-amz-security-token": token} if token else {}
        names = ";".join(headers)
        lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
        asked = f"PUT\n{url.raw_path.decode()}\n\n{lines}\n{names}\n{digest}"
        scope = f"{day}/{self.region}/s3/aws4_request"
        told = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(asked.encode()).hexdigest()}"
        key = f"AWS4{self.secret.get_secret_value()}".encode()
        for part in (day, self.region, "s3", "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, told.encode(), "sha256").hex()
        credential = f"Credential={self.key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
        return headers | {"authorization": f"AWS4-HMAC-SHA256 {credential}"}


def client_for(bucket: Bucket) -> httpx.Client:
    """Follows no redirect, as a signature holds for one host."""
    near = httpx.URL(bucket.url).host in {"127.0.0.1", "::1", "localhost"}
    return httpx.Client(timeout=TIMEOUT, trust_env=not near, headers={"user-agent": f"fluxfarm/{__version__}"})
