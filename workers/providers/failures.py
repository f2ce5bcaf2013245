"""From what a provider answers to the leaves of ``ProviderError``; what is common to all of them.

=========================  =======================  =============================================
answer                     to a paid POST           to a poll
=========================  =======================  =============================================
401, 402, 403              ProviderAccount          ProviderAccount
408, 425, 429              ProviderBusy             ProviderBusy (poll again)
404, 410                   ProviderRefused          ResultLost
other 4xx                  ProviderRefused          ProviderFailed
3xx                        ProviderFailed           ProviderFailed
5xx                        OutcomeUnknown           ProviderBusy (poll again)
2xx that cannot be read    OutcomeUnknown           ProviderBusy (poll again)
=========================  =======================  =============================================

An adapter looks first for what its provider documents, which may say more: that a 503 was not accepted, that a 422 is
about the key or the content.
"""

from __future__ import annotations

import re
from typing import Any, Final

from fluxfarm.errors import (
    OutcomeUnknown,
    ProviderAccount,
    ProviderBusy,
    ProviderError,
    ProviderFailed,
    ProviderRefused,
    ResultLost,
)
from workers.providers.contract import Account
from workers.providers.wire import Reply

#: in the words of a refusal for content, where a provider documents no code; E005 is what Replicate's models write
CONTENT: Final = re.compile(r"nsfw|flagged|\bE005\b|sensitive|safety|moderat|content.?policy", re.IGNORECASE)
LONGEST: Final = 300  #: characters of a provider's own words that are kept
_ACCOUNT: Final = frozenset({401, 402, 403})
_PATIENCE: Final = frozenset({408, 425, 429})
_GONE: Final = frozenset({404, 410})


def submit_failure(provider: str, reply: Reply, account: Account, found: str = "") -> ProviderError:
    """The class of a reply to a paid POST by its status alone; ``found`` replaces the words of the body."""
    told = words(provider, reply, account, found)
    if reply.status in _ACCOUNT:
        return ProviderAccount(told)
    if reply.status in _PATIENCE:
        return ProviderBusy(told, retry_after=reply.retry_after)
    if 400 <= reply.status < 500:  # noqa: PLR2004
        return ProviderRefused(told)
    if 300 <= reply.status < 400:  # noqa: PLR2004 - redirects are not followed
        return ProviderFailed(told)
    return OutcomeUnknown(f"{told} Whether the call was accepted is not known.")


def poll_failure(provider: str, reply: Reply, account: Account, found: str = "") -> ProviderError:
    """The class of a reply to a poll by its status alone; ``ProviderBusy`` means: poll again."""
    told = words(provider, reply, account, found)
    if reply.status in _ACCOUNT:
        return ProviderAccount(told)
    if reply.status in _GONE:
        return ResultLost(told)
    if 300 <= reply.status < 500 and reply.status not in _PATIENCE:  # noqa: PLR2004
        return ProviderFailed(told)
    return ProviderBusy(told, retry_after=reply.retry_after)


def words(provider: str, reply: Reply, account: Account, found: str = "") -> str:
    """A sentence with the status and the provider's own reason, without the key."""
    reason = clean(found or reason_of(reply.json()), account)
    return f"{provider} answered {reply.status}{f': {reason}' if reason else ' and gave no reason.'}"


def clean(text: str, account: Account) -> str:
    """One printable line of at most 300 characters in which the key does not stand."""
    key = account.key.get_secret_value()
    hidden = text.replace(key, "…") if key else text
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in hidden).split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}…"


def reason_of(value: Any) -> str:
    """The text in an error's JSON, whichever of the known forms it has.

    ``{"detail": "text"}``, FastAPI's list under ``detail``, ``{"error": "text"}``, ``{"error": {"message"}}``,
    ``{"errors": [{"message"}]}``, ``{"message"}``, ``{"title"}``. FastAPI's echo of the ``input`` is left out.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "; ".join(filter(None, map(reason_of, value[:3])))
    if isinstance(value, dict):
        names = ("detail", "error", "errors", "message", "msg", "title")
        return next(filter(None, (reason_of(value.get(name)) for name in names)), "")
    return ""
