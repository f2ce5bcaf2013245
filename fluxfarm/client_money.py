"""The part of the client that tells of providers and money."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from fluxfarm.client_replies import ProviderReply, UsageReply, read_reply, read_rows
from fluxfarm.client_transport import Transport


class Money:
    """Usage and the leaderboard, over the transport of the client."""

    _transport: Transport

    def usage(self, *, since: datetime | None = None, until: datetime | None = None) -> UsageReply:
        """What the tenant's jobs cost, the last 30 days unless said otherwise, and what is left of its budget."""
        asked = {name: value.isoformat() for name, value in (("since", since), ("until", until)) if value is not None}
        return read_reply(UsageReply, self._transport.get("/v1/usage", asked))

    def providers(self, window: str = "24h") -> Sequence[ProviderReply]:
        """How each provider did lately; ``window`` is ``24h`` or ``30d``."""
        return read_rows(ProviderReply, self._transport.get("/v1/providers", {"window": window}))


def usd(amount: Decimal | None) -> str:
    """An amount as a person reads it; a dash for none."""
    return "-" if amount is None else f"{amount:.6f}".rstrip("0").rstrip(".")
