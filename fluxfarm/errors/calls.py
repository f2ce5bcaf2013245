"""What ends a call: each leaf is an HTTP status and a code."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from fluxfarm.errors.issues import Issue
from fluxfarm.errors.root import FluxfarmError


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


class InvalidCampaign(BadRequest):
    """A campaign cannot be planned; ``issues`` says where and why, ``total`` how many there are in all."""

    code = "invalid_campaign"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        job: UUID | None = None,
        issues: Sequence[Issue] = (),
        total: int | None = None,
    ) -> None:
        """As any error, with the first issues."""
        super().__init__(message, param=param, retry_after=retry_after, job=job)
        self.issues = tuple(issues)
        self.total = len(self.issues) if total is None else total


class NoRoute(BadRequest):
    """No provider that is configured here can ever serve the request."""

    code = "no_route"


class Unauthorized(FluxfarmError):
    """There is no valid key."""

    code = "invalid_api_key"
    status = 401


class BudgetExceeded(FluxfarmError):
    """The job is estimated at more than a budget has left; nothing was spent."""

    code = "budget_exceeded"
    status = 402


class Forbidden(FluxfarmError):
    """The key or the link does not allow it."""

    code = "forbidden"
    status = 403


class LinkExpired(Forbidden):
    """The presigned link is past its time."""

    code = "link_expired"


class LicenceForbidden(Forbidden):
    """The weights are for non-commercial use, and the tenant is a commercial one."""

    code = "licence_forbidden"


class ModelForbidden(Forbidden):
    """The model is not among those of the tenant."""

    code = "model_forbidden"


class NotFound(FluxfarmError):
    """No such thing for this tenant; somebody else's counts as no such thing."""

    code = "not_found"
    status = 404


class ModelNotFound(NotFound):
    """The catalogue does not know the model."""

    code = "model_not_found"


class LoraNotFound(NotFound):
    """The farm's folder of LoRAs has no such file."""

    code = "lora_not_found"


class MethodNotAllowed(FluxfarmError):
    """The path exists, the method does not."""

    code = "method_not_allowed"
    status = 405


class Conflict(FluxfarmError):
    """The present state does not allow it; ``job`` is the job that stands in the way, when it is another one."""

    code = "conflict"
    status = 409


class ExternalIdTaken(Conflict):
    """Another job of the tenant has this external id."""

    code = "external_id_taken"


class AlreadyRetried(Conflict):
    """The job was retried before; a job is retried once, and its retry can be retried in turn."""

    code = "already_retried"


class CampaignExists(Conflict):
    """Another campaign of the tenant has this name, and other content."""

    code = "campaign_exists"


class IdempotencyInFlight(Conflict):
    """A call with this ``Idempotency-Key`` is still worked on; the same call soon gets its reply."""

    code = "idempotency_in_flight"
    retryable = True


class Gone(FluxfarmError):
    """What the call needs was erased, as the time that it is kept for was over."""

    code = "gone"
    status = 410


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
    policy = "key"  #: the limit that is reached: ``key``, as ``RateLimit-Policy`` has it, or ``open-calls``


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
    """The database does not answer; ``may_be_done``: nobody knows whether it has carried the call out."""

    code = "database_unavailable"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        job: UUID | None = None,
        may_be_done: bool = False,
    ) -> None:
        """As any error."""
        super().__init__(message, param=param, retry_after=retry_after, job=job)
        self.may_be_done = may_be_done


class BrokerUnavailable(Unavailable):
    """The broker does not answer."""

    code = "broker_unavailable"


class StoreUnavailable(Unavailable):
    """The object store does not answer."""

    code = "store_unavailable"


class StillRendering(FluxfarmError):
    """A call that waits for its pictures has waited long enough; ``job`` goes on and can be read."""

    code = "still_rendering"
    status = 504
