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
│   ├── InvalidCampaign        400  invalid_campaign       a campaign's specification or rows; ``issues`` says where
│   └── NoRoute                400  no_route               no provider here can ever serve this request
├── Unauthorized               401  invalid_api_key        no key, a wrong, expired or revoked one
├── BudgetExceeded             402  budget_exceeded        estimated at more than a budget has left
├── Forbidden                  403  forbidden              the key lacks the scope; a link was altered
│   ├── LicenceForbidden       403  licence_forbidden      non-commercial weights for a commercial tenant
│   ├── ModelForbidden         403  model_forbidden        a model that is not among the tenant's
│   └── LinkExpired            403  link_expired           the presigned link is past its time
├── NotFound                   404  not_found              no such thing for this tenant
│   ├── ModelNotFound          404  model_not_found        the catalogue does not know this model
│   └── LoraNotFound           404  lora_not_found         no such file in the farm's folder of LoRAs
├── MethodNotAllowed           405  method_not_allowed
├── Conflict                   409  conflict               the job's state does not allow it
│   ├── ExternalIdTaken        409  external_id_taken      another job of the tenant has this name
│   ├── AlreadyRetried         409  already_retried        the job was retried before; that job is named
│   ├── CampaignExists         409  campaign_exists        another campaign of the tenant has this name
│   └── IdempotencyInFlight    409  idempotency_in_flight  a call with this key is still worked on (try again)
├── Gone                       410  gone                   what is needed was erased, as its time was over
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
├── StillRendering             504  still_rendering        a call has waited long enough; its job goes on
└── RenderError                     ends or postpones an attempt; shown in the record, not as an HTTP status
    ├── ModelUnavailable            model_unavailable      the weights are missing or broken (final)
    ├── LoraUnusable                lora_unusable          a LoRA is gone, broken or fits nothing in the model (final)
    ├── PromptTooLong               prompt_too_long        more tokens than the model reads (final)
    ├── RenderFailed                render_failed          the pipeline raised (try again)
    ├── OutOfMemory                 out_of_memory          the device has no room (try again)
    ├── DeviceLost                  device_lost            the GPU is dead for this process, which must end (try again)
    ├── ReferenceGone               reference_gone         a reference was deleted before the render (final)
    ├── WorkerLost                  worker_lost            the lease ran out: the worker died (try again)
    ├── Poison                      poison                 killed its worker too often (final)
    ├── Canceled                    canceled               the caller stopped it (final)
    ├── ProviderError               provider_error         a remote provider did not render (final)
    │   ├── ProviderBusy            provider_busy          out of capacity, or throttled (try again)
    │   ├── ProviderFailed          provider_failed        it failed; another provider may do it (try again)
    │   ├── ProviderAccount         provider_account       key, credit or quota: off until someone looks (try again)
    │   ├── ProviderRefused         provider_refused       it does not take this request (final)
    │   ├── ResultLost              result_lost            it was rendered, and the result is gone (try again)
    │   ├── Moderated               moderated              refused for its content, everywhere (final)
    │   └── OutcomeUnknown          outcome_unknown        a paid call may or may not have been accepted (final)
    └── LeaseLost                   lease_lost             another attempt owns the job now (final for this one)
"""

from __future__ import annotations

from fluxfarm.errors.calls import (
    AlreadyRetried,
    BadRequest,
    BrokerUnavailable,
    BudgetExceeded,
    CampaignExists,
    Conflict,
    DatabaseUnavailable,
    ExternalIdTaken,
    Forbidden,
    ForbiddenUrl,
    Gone,
    IdempotencyInFlight,
    IdempotencyKeyReused,
    InternalError,
    InvalidCampaign,
    InvalidField,
    InvalidIdempotencyKey,
    InvalidPrompt,
    InvalidReference,
    InvalidSize,
    LicenceForbidden,
    LinkExpired,
    LoraNotFound,
    MalformedBody,
    MethodNotAllowed,
    ModelForbidden,
    ModelNotFound,
    NoRoute,
    NotFound,
    PayloadTooLarge,
    RangeNotSatisfiable,
    StillRendering,
    StoreUnavailable,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UnknownField,
    UnreachableUrl,
    UnsupportedMediaType,
)
from fluxfarm.errors.issues import Issue
from fluxfarm.errors.renders import (
    Canceled,
    DeviceLost,
    LeaseLost,
    LoraUnusable,
    ModelUnavailable,
    Moderated,
    OutcomeUnknown,
    OutOfMemory,
    Poison,
    PromptTooLong,
    ProviderAccount,
    ProviderBusy,
    ProviderError,
    ProviderFailed,
    ProviderRefused,
    ReferenceGone,
    RenderError,
    RenderFailed,
    ResultLost,
    WorkerLost,
)
from fluxfarm.errors.root import FluxfarmError

__all__ = [
    "AlreadyRetried",
    "BadRequest",
    "BrokerUnavailable",
    "BudgetExceeded",
    "CampaignExists",
    "Canceled",
    "Conflict",
    "DatabaseUnavailable",
    "DeviceLost",
    "ExternalIdTaken",
    "FluxfarmError",
    "Forbidden",
    "ForbiddenUrl",
    "Gone",
    "IdempotencyInFlight",
    "IdempotencyKeyReused",
    "InternalError",
    "InvalidCampaign",
    "InvalidField",
    "InvalidIdempotencyKey",
    "InvalidPrompt",
    "InvalidReference",
    "InvalidSize",
    "Issue",
    "LeaseLost",
    "LicenceForbidden",
    "LinkExpired",
    "LoraNotFound",
    "LoraUnusable",
    "MalformedBody",
    "MethodNotAllowed",
    "ModelForbidden",
    "ModelNotFound",
    "ModelUnavailable",
    "Moderated",
    "NoRoute",
    "NotFound",
    "OutOfMemory",
    "OutcomeUnknown",
    "PayloadTooLarge",
    "Poison",
    "PromptTooLong",
    "ProviderAccount",
    "ProviderBusy",
    "ProviderError",
    "ProviderFailed",
    "ProviderRefused",
    "RangeNotSatisfiable",
    "ReferenceGone",
    "RenderError",
    "RenderFailed",
    "ResultLost",
    "StillRendering",
    "StoreUnavailable",
    "TooManyRequests",
    "Unauthorized",
    "Unavailable",
    "UnknownField",
    "UnreachableUrl",
    "UnsupportedMediaType",
    "WorkerLost",
]
