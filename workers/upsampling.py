"""The prompt rewritten before the render, when a job asked for it; what it became is stored before anything is drawn.

A configured chat endpoint does it for every model, beside the device; else the pipeline's own text encoder where it
can; else the attempt lists it as ignored. A rewrite that fails is no reason to draw nothing: the prompt stays, and that
is said.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import httpx
import structlog

from fluxfarm.errors import InvalidPrompt, LeaseLost
from fluxfarm.request import check_prompt
from fluxfarm.settings import Settings
from storage.repository import attempts
from workers.leases import Held

if TYPE_CHECKING:
    from workers.worker import RenderWorker

FIELD: Final = "prompt_upsampling"
TIMEOUT: Final = 30.0  #: seconds for one answer of the chat endpoint
MAX_TOKENS: Final = 400  #: of the answer; with a template around it, 512 are read
INSTRUCTIONS: Final = (
    "You write prompts for an image model. Rewrite what the user sends as one paragraph that says what is to be seen: "
    "subject, setting, composition, light, colours, style. Keep every fact, name and quoted text exactly as it is, and "
    "add nothing that contradicts it. Answer with the paragraph alone."
)

log = structlog.get_logger()


def by_chat(settings: Settings, prompt: str, seed: int) -> str:
    """What an OpenAI-compatible chat endpoint makes of the prompt.

    Raises:
        httpx.HTTPError, ValueError: no answer, or not one of this protocol.
    """
    body = {
        "model": settings.upsampling_model,
        "messages": [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": prompt}],
        "seed": seed,
        "temperature": 0.15,
        "max_tokens": MAX_TOKENS,
    }
    key = settings.upsampling_key.get_secret_value()
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    url = f"{settings.upsampling_url.rstrip('/')}/chat/completions"
    reply = httpx.post(url, json=body, headers=headers, timeout=TIMEOUT, trust_env=False).raise_for_status()
    found: Any = reply.json()
    try:
        text = found["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise ValueError("no choice in the answer") from None
    if not isinstance(text, str):
        raise ValueError("no text in the answer")  # noqa: TRY004 - one family for every bad answer
    return text


def upsample(worker: RenderWorker, held: Held, rewrite: Callable[[], str | None]) -> None:
    """Let ``rewrite`` do it and store the result; None: it cannot be done here.

    Raises:
        LeaseLost: another attempt owns the job.
    """
    claim = held.claim
    try:
        text = rewrite()
        revised = None if text is None else check_prompt(text)
    except (httpx.HTTPError, ValueError, InvalidPrompt) as error:
        log.warning("prompt_not_upsampled", job=str(claim.uuid), error=type(error).__name__)
        revised = None
    held.check()
    with worker.database.transaction() as session:
        if revised is None:
            attempts.ignore(session, claim, FIELD)
        elif not attempts.revise(session, claim, revised):
            raise LeaseLost("Another attempt owns the job.")
    done = {"prompt": revised or claim.request.prompt, FIELD: False}
    held.claim = replace(claim, request=claim.request.model_copy(update=done))
