"""Any S3 as an object store: AWS, R2, SeaweedFS, Garage and others that speak SigV4."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from fluxfarm.errors import Conflict, FluxfarmError, NotFound, StoreUnavailable
from fluxfarm.settings import Settings
from storage.links import content_disposition
from storage.object_keys import StoredObject, check_prefix, check_put, check_ttl, content_type_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_BATCH: Final = 1000  #: keys that one DeleteObjects may name
_POOL: Final = 64  #: kept connections of a client; more threads than this still work
_CONFLICT_TRIES: Final = 4
_CONFLICT_PAUSE: Final = 0.1  #: seconds before the first repeat, doubled each time
_RETRY_AFTER: Final = 5.0  #: seconds
_NOT_OFFERED: Final = frozenset({400, 405, 501})  #: statuses of servers that lack DeleteObjects


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one call may take: about ``attempts`` times (``connect`` + ``read``) seconds, and pauses below 3 s."""

    connect: float
    read: float
    attempts: int


PATIENT: Final = Patience(connect=3, read=10, attempts=3)  #: for workers, who would lose a render
HASTY: Final = Patience(connect=1, read=3, attempts=1)  #: for requests and probes, which answer 503 instead


class S3Store:
    """One bucket; keys, sizes and errors mean the same here as on the local disk."""

    def __init__(self, settings: Settings, patience: Patience = PATIENT) -> None:
        """Makes the clients (no network yet): one for work, one in a hurry for ``check``, one for public links.

        Raises:
            StoreUnavailable: the endpoint is no URL, or the region no name.
        """
        self._bucket = settings.s3_bucket
        self._region = settings.s3_region
        self._own_endpoint = bool(settings.s3_endpoint_url)
        self._conditional = True  # until the server says that it has no If-None-Match
        with _s3_errors("start"):
            session = Session()
            self._client = _client(session, settings, settings.s3_endpoint_url, patience)
            hasty = Patience(min(patience.connect, HASTY.connect), min(patience.read, HASTY.read), attempts=1)
            self._probe = _client(session, settings, settings.s3_endpoint_url, hasty)
            public = settings.s3_public_endpoint_url
            self._public = _client(session, settings, public, patience) if public else self._client

    def put(self, key: str, body: bytes, content_type: str) -> None:
        """See ``ObjectStore.put``; the key is claimed with ``If-None-Match: *`` where the server has it."""
        check_put(key, content_type)
        for attempt in range(_CONFLICT_TRIES):
            if attempt:
                time.sleep(_CONFLICT_PAUSE * 2 ** (attempt - 1))
            outcome = self._try_put(key, body, content_type)
            if outcome == "stored" or (outcome == "exists" and self._holds(key, body)):
                return
        raise StoreUnavailable("The object store does not settle a conditional write.", retry_after=_RETRY_AFTER)

    def get(self, key: str) -> bytes:
        """See ``ObjectStore.get``."""
        content_type_of(key)
        with _s3_errors("read"):
            response = self._client.get_object(Bucket=self._bucket, Key=key)
            with closing(response["Body"]) as body:
                return body.read()

    def stat(self, key: str) -> StoredObject | None:
        """See ``ObjectStore.stat``."""
        try:
            content_type_of(key)
            with _s3_errors("read"):
                head = self._client.head_object(Bucket=self._bucket, Key=key)
        except NotFound:
            return None
        return StoredObject(key, head["ContentLength"], head["ContentType"])

    def delete(self, key: str) -> None:
        """See ``ObjectStore.delete``."""
        content_type_of(key)
        self._delete([key])

    def delete_prefix(self, prefix: str) -> int:
        """See ``ObjectStore.delete_prefix``; in a versioned bucket old versions stay until its own rules drop them."""
        keys = self.keys(check_prefix(prefix, whole_store=False))
        count = 0
        while batch := list(islice(keys, _BATCH)):
            self._delete(batch)
            count += len(batch)
        return count

    def keys(self, prefix: str) -> Iterator[str]:
        """See ``ObjectStore.keys``."""
        check_prefix(prefix, whole_store=True)
        with _s3_errors("list"):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
            for page in pages:
                for entry in page.get("Contents", []):
                    yield entry["Key"]

    def presign(self, key: str, *, ttl: int, content_type: str, filename: str | None, inline: bool) -> str:
        """See ``ObjectStore.presign``; signed for the public endpoint, because the host is part of the signature."""
        content_type_of(key)
        params = {
            "Bucket": self._bucket,
            "Key": key,
            "ResponseContentType": content_type,
            "ResponseContentDisposition": content_disposition(filename, inline=inline),
        }
        with _s3_errors("sign a link"):
            return self._public.generate_presigned_url("get_object", Params=params, ExpiresIn=check_ttl(ttl))

    def check(self) -> None:
        """See ``ObjectStore.check``; one HeadBucket, without repeats."""
        try:
            with _s3_errors("answer"):
                self._probe.head_bucket(Bucket=self._bucket)
        except NotFound as error:
            raise StoreUnavailable(f"The bucket {self._bucket!r} does not exist.", retry_after=_RETRY_AFTER) from error

    def ensure_bucket(self) -> None:
        """Creates the bucket if it is missing: for a farm that brings its own S3 server."""
        with _s3_errors("create the bucket"):
            try:
                self._client.head_bucket(Bucket=self._bucket)
            except ClientError as error:
                if _status(error) != 404:  # noqa: PLR2004
                    raise
                self._create_bucket()

    def close(self) -> None:
        """See ``ObjectStore.close``."""
        for client in (self._client, self._probe, self._public):
            client.close()

    def _try_put(self, key: str, body: bytes, content_type: str) -> Literal["stored", "exists", "again"]:
        with _s3_errors("store"):
            try:
                if self._conditional:
                    self._client.put_object(
                        Bucket=self._bucket, Key=key, Body=body, ContentType=content_type, IfNoneMatch="*"
                    )
                else:
                    self._client.put_object(Bucket=self._bucket, Key=key, Body=body, ContentType=content_type)
            except ClientError as error:
                if _status(error) == 412:  # noqa: PLR2004
                    return "exists"
                if _code(error) == "ConditionalRequestConflict":
                    return "again"
                if _code(error) == "NotImplemented" and self._conditional:
                    self._conditional = False
                    return "again"
                raise
            return "stored"

    def _holds(self, key: str, body: bytes) -> bool:
        """True if the key already has this content (an earlier try whose reply was lost); False if it is gone again."""
        try:
            if self.get(key) != body:
                raise Conflict("The object exists with other content.")
        except NotFound:
            return False
        return True

    def _delete(self, keys: list[str]) -> None:
        with _s3_errors("delete"):
            try:
                reply = self._client.delete_objects(
                    Bucket=self._bucket, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
                )
            except ClientError as error:
                if _status(error) not in _NOT_OFFERED:
                    raise
                for key in keys:
                    self._client.delete_object(Bucket=self._bucket, Key=key)
                return
        if failed := [entry for entry in reply.get("Errors", []) if entry.get("Code") != "NoSuchKey"]:
            raise StoreUnavailable(f"The object store kept {len(failed)} objects.", retry_after=_RETRY_AFTER)

    def _create_bucket(self) -> None:
        try:
            if self._own_endpoint or self._region == "us-east-1":
                self._client.create_bucket(Bucket=self._bucket)
            else:
                place = {"LocationConstraint": self._region}
                self._client.create_bucket(Bucket=self._bucket, CreateBucketConfiguration=place)  # type: ignore[arg-type]
        except ClientError as error:
            if _code(error) != "BucketAlreadyOwnedByYou":
                raise


def _client(session: Session, settings: Settings, endpoint: str, patience: Patience) -> S3Client:
    own = bool(settings.s3_endpoint_url)
    style = settings.s3_addressing_style
    if style == "auto":  # a dot in a bucket's name does not fit the certificate of a virtual host
        style = "path" if own or "." in settings.s3_bucket else "virtual"
    checksums = settings.s3_checksums
    if checksums == "auto":
        checksums = "when_required" if own else "when_supported"
    config = Config(
        signature_version="s3v4",  # boto3 would still presign with SigV2 in us-east-1
        s3={"addressing_style": style},
        connect_timeout=patience.connect,
        read_timeout=patience.read,
        retries={"mode": "standard", "total_max_attempts": patience.attempts},
        request_checksum_calculation=checksums,
        response_checksum_validation=checksums,
        max_pool_connections=_POOL,
        ignore_configured_endpoint_urls=True,  # type: ignore[call-arg]  # the farm's settings say where S3 is, not AWS_ENDPOINT_URL
    )
    return session.client(
        "s3",
        region_name=settings.s3_region,
        endpoint_url=endpoint or None,
        aws_access_key_id=settings.s3_access_key_id or None,
        aws_secret_access_key=settings.s3_secret_access_key.get_secret_value() or None,
        config=config,
    )


@contextmanager
def _s3_errors(action: str) -> Iterator[None]:
    """Turns what boto3 raises into the farm's errors; only the server's error code gets into a message."""
    try:
        yield
    except ClientError as error:
        raise _translated(error, action) from error
    except (BotoCoreError, ResponseParserError, ValueError) as error:  # ValueError: an endpoint that is no URL
        message = f"The object store did not {action} ({type(error).__name__})."
        raise StoreUnavailable(message, retry_after=_RETRY_AFTER) from error


def _translated(error: ClientError, action: str) -> FluxfarmError:
    code = _code(error)
    if _status(error) == 404 and code != "NoSuchBucket":  # noqa: PLR2004
        return NotFound("There is no such object.")
    shown = code if re.fullmatch(r"[A-Za-z0-9.]{1,64}", code) else "unknown reason"
    return StoreUnavailable(f"The object store did not {action} ({shown}).", retry_after=_RETRY_AFTER)


def _code(error: ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")


def _status(error: ClientError) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
