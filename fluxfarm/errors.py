"""The one tree of errors; each leaf has a stable code, an HTTP status and says whether trying again can help.

FluxfarmError
├── BadRequest                 400  what the caller sent cannot be done as it stands
│   ├── MalformedBody          400  malformed_body         not JSON, NaN, too deep, bad UTF-8
│   ├── InvalidField           400  invalid_field          a value out of its range, or of the wrong type
│   ├── UnknownField           400  unknown_field          a name that nobody here knows
│   ├── InvalidPrompt          400  invalid_prompt         empty, too long, control characters, surrogates
│   ├── InvalidSize            400  invalid_size           a size that the model cannot render
│   ├── InvalidReference       400  invalid_reference      not an image, animated, too large in pixels
│   ├── ForbiddenUrl           400  forbidden_url          a URL that the farm will not open
│   ├── UnreachableUrl         400  unreachable_url        a URL that did not answer with an image in time
│   ├── InvalidIdempotencyKey  400  invalid_idempotency_key  empty, over 255 characters, not visible ASCII
│   └── NoRoute                400  no_route               no provider here can ever serve this request
├── Unauthorized               401  invalid_api_key        no key, a wrong, expired or revoked one
├── Forbidden                  403  forbidden              the key lacks the scope; a link was altered
│   └── LinkExpired            403  link_expired           the presigned link is past its time
├── NotFound                   404  not_found              no such thing for this tenant
│   └── ModelNotFound          404  model_not_found        the catalogue does not know this model
├── MethodNotAllowed           405  method_not_allowed
├── Conflict                   409  conflict               the job's state does not allow it
│   ├── ExternalIdTaken        409  external_id_taken      another job of the tenant has this name
│   ├── AlreadyRetried         409  already_retried        the job was retried before; that job is named
│   └── IdempotencyInFlight    409  idempotency_in_flight  a call with this key is still worked on (try again)
├── PayloadTooLarge            413  payload_too_large
├── UnsupportedMediaType       415  unsupported_media_type
├── RangeNotSatisfiable        416  range_not_satisfiable
├── IdempotencyKeyReused       422  idempotency_key_reused  the key came before, with another call
├── TooManyRequests            429  too_many_requests      (try again after ``retry_after``)
├── InternalError              500  internal_error         a fault of ours; logged with the request id
├── Unavailable                503  unavailable            a part of the farm is down (try again)
│   ├── DatabaseUnavailable    503  database_unavailable
│   ├── BrokerUnavailable      503  broker_unavailable
│   └── StoreUnavailable       503  store_unavailable
└── RenderError                     ends or postpones an attempt; shown in the record, not as an HTTP status
    ├── ModelUnavailable            model_unavailable      the weights are missing or broken (final)
    ├── PromptTooLong               prompt_too_long        more tokens than the model reads (final)
    ├── RenderFailed                render_failed          the pipeline raised (try again)
    ├── OutOfMemory                 out_of_memory          the device has no room (try again)
    ├── DeviceLost                  device_lost            the GPU is dead for this process, which must end (try again)
    ├── ReferenceGone               reference_gone         a reference was deleted before the render (final)
    ├── WorkerLost                  worker_lost            the lease ran out: the worker died (try again)
    ├── Poison                      poison                 killed its worker too often (final)
    ├── Canceled                    canceled               the caller stopped it (final)
    └── LeaseLost                   lease_lost             another attempt owns the job now (final for this one)
"""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID


class FluxfarmError(Exception):
    """The root: ``message`` is a sentence for a person, ``code`` a word for a program."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, param: str | None = None, retry_after: float | None = None) -> None:
        """``param`` names the field at fault (dotted path); ``retry_after`` is in seconds."""
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after


class BadRequest(FluxfarmError):
    """What the caller sent cannot be done as it stands."""

    code = "bad_request"
    status = 400


class MalformedBody(BadRequest):
    """The body is not what its content type says."""

    code = "malformed_body"


class InvalidField(BadRequest):
    """A value is out of its range or of the wrong type."""

    code = "invalid_field"


class UnknownField(BadRequest):
    """A name that neither the farm nor the chosen provider knows."""

    code = "unknown_field"


class InvalidPrompt(BadRequest):
    """The prompt is empty, too long or holds characters that no text may hold."""

    code = "invalid_prompt"


class InvalidSize(BadRequest):
    """The model cannot render this size."""

    code = "invalid_size"


class InvalidReference(BadRequest):
    """A reference image cannot be used."""

    code = "invalid_reference"


class ForbiddenUrl(BadRequest):
    """The farm does not open this URL (private network, redirect, scheme or port)."""

    code = "forbidden_url"


class UnreachableUrl(BadRequest):
    """The URL did not answer in time or within the size cap."""

    code = "unreachable_url"


class InvalidIdempotencyKey(BadRequest):
    """The ``Idempotency-Key`` is empty, too long or malformed."""

    code = "invalid_idempotency_key"


class NoRoute(BadRequest):
    """No provider that is configured here can ever serve the request."""

    code = "no_route"


class Unauthorized(FluxfarmError):
    """There is no valid key."""

    code = "invalid_api_key"
    status = 401


class Forbidden(FluxfarmError):
    """The key or the link does not allow it."""

    code = "forbidden"
    status = 403


class LinkExpired(Forbidden):
    """The presigned link is past its time."""

    code = "link_expired"


class NotFound(FluxfarmError):
    """No such thing for this tenant; somebody else's counts as no such thing."""

    code = "not_found"
    status = 404


class ModelNotFound(NotFound):
    """The catalogue does not know the model."""

    code = "model_not_found"


class MethodNotAllowed(FluxfarmError):
    """The path exists, the method does not."""

    code = "method_not_allowed"
    status = 405


class Conflict(FluxfarmError):
    """The present state does not allow it; ``job`` is the job that stands in the way, when it is another one."""

    code = "conflict"
    status = 409

    def __init__(
        self, message: str, *, param: str | None = None, retry_after: float | None = None, job: UUID | None = None
    ) -> None:
        """As any error, and the uuid of the other job."""
        super().__init__(message, param=param, retry_after=retry_after)
        self.job = job


class ExternalIdTaken(Conflict):
    """Another job of the tenant has this external id."""

    code = "external_id_taken"


class AlreadyRetried(Conflict):
    """The job was retried before; a job is retried once, and its retry can be retried in turn."""

    code = "already_retried"


class IdempotencyInFlight(Conflict):
    """A call with this ``Idempotency-Key`` is still worked on; the same call soon gets its reply."""

    code = "idempotency_in_flight"
    retryable = True


class PayloadTooLarge(FluxfarmError):
    """The body is over the cap."""

    code = "payload_too_large"
    status = 413


class UnsupportedMediaType(FluxfarmError):
    """The content type is not one that this call takes."""

    code = "unsupported_media_type"
    status = 415


class RangeNotSatisfiable(FluxfarmError):
    """The Range header asks for bytes that do not exist."""

    code = "range_not_satisfiable"
    status = 416


class IdempotencyKeyReused(FluxfarmError):
    """The ``Idempotency-Key`` came before, with another call."""

    code = "idempotency_key_reused"
    status = 422


class TooManyRequests(FluxfarmError):
    """A limit is reached."""

    code = "too_many_requests"
    status = 429
    retryable = True


class InternalError(FluxfarmError):
    """A fault of the farm itself."""

    code = "internal_error"
    status = 500


class Unavailable(FluxfarmError):
    """A part of the farm is down for the moment."""

    code = "unavailable"
    status = 503
    retryable = True


class DatabaseUnavailable(Unavailable):
    """The database does not answer."""

    code = "database_unavailable"


class BrokerUnavailable(Unavailable):
    """The broker does not answer."""

    code = "broker_unavailable"


class StoreUnavailable(Unavailable):
    """The object store does not answer."""

    code = "store_unavailable"


class RenderError(FluxfarmError):
    """Ends or postpones an attempt; it is written to the record, not answered over HTTP."""

    code = "render_error"


class ModelUnavailable(RenderError):
    """The weights are missing or broken."""

    code = "model_unavailable"


class PromptTooLong(RenderError):
    """The prompt has more tokens than the model reads; the rest would be dropped silently."""

    code = "prompt_too_long"


class RenderFailed(RenderError):
    """The pipeline raised."""

    code = "render_failed"
    retryable = True


class OutOfMemory(RenderError):
    """The device has no room for this render."""

    code = "out_of_memory"
    retryable = True


class DeviceLost(RenderError):
    """The device failed for good as far as this process goes: the worker must end and be started again."""

    code = "device_lost"
    retryable = True


class ReferenceGone(RenderError):
    """A reference was deleted before the render could read it; a retry by the caller is refused with 409."""

    code = "reference_gone"
    status = 409


class WorkerLost(RenderError):
    """The lease ran out: its worker died or was cut off."""

    code = "worker_lost"
    retryable = True


class Poison(RenderError):
    """The job killed its worker too often to be started again."""

    code = "poison"


class Canceled(RenderError):
    """The caller stopped the job."""

    code = "canceled"


class LeaseLost(RenderError):
    """Another attempt owns the job now; this one must change nothing more."""

    code = "lease_lost"
