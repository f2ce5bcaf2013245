"""What ends or postpones an attempt: written to the record, not answered over HTTP."""

from __future__ import annotations

from fluxfarm.errors.root import FluxfarmError


class RenderError(FluxfarmError):
    """Ends or postpones an attempt; it is written to the record, not answered over HTTP."""

    code = "render_error"


class ModelUnavailable(RenderError):
    """The weights are missing or broken."""

    code = "model_unavailable"


class LoraUnusable(RenderError):
    """A LoRA is gone from the worker's folder, is broken, or nothing in it fits the model."""

    code = "lora_unusable"


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


class ProviderError(RenderError):
    """A remote provider did not render; each leaf is a class of PROVIDERS' failures, whoever the provider is."""

    code = "provider_error"


class ProviderBusy(ProviderError):
    """Out of capacity or throttled: the same provider may do it after ``retry_after`` seconds."""

    code = "provider_busy"
    retryable = True


class ProviderFailed(ProviderError):
    """The provider failed at it; another one may do it."""

    code = "provider_failed"
    retryable = True


class ProviderAccount(ProviderError):
    """The key, the credit or the quota: the provider's account is off until somebody looks at it."""

    code = "provider_account"
    retryable = True


class ProviderRefused(ProviderError):
    """The provider does not take this request as it stands."""

    code = "provider_refused"


class ResultLost(ProviderError):
    """The provider rendered, and its result can no longer be had."""

    code = "result_lost"
    retryable = True


class Moderated(ProviderError):
    """Refused for its content; it is taken to no other provider."""

    code = "moderated"


class OutcomeUnknown(ProviderError):
    """A paid call was sent and its answer was lost; it is not sent again."""

    code = "outcome_unknown"


class LeaseLost(RenderError):
    """Another attempt owns the job now; this one must change nothing more."""

    code = "lease_lost"
