"""The part of the client that says who may do what: keys for an admin, tenants for an operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from fluxfarm.client_replies import KeyReply, TenantReply, read_reply, read_rows
from fluxfarm.client_transport import Transport
from fluxfarm.errors import InvalidField


class Access:
    """Keys and tenants, over the transport of the client."""

    _transport: Transport

    def keys(self) -> Sequence[KeyReply]:
        """The tenant's API keys, without their text."""
        return read_rows(KeyReply, self._transport.get("/v1/keys"))

    def create_key(
        self,
        name: str,
        *,
        scopes: Sequence[str] = (),
        expires_at: datetime | None = None,
        rate_limit: int | None = None,
        tenant: UUID | str | None = None,
    ) -> KeyReply:
        """A new key; its text is in ``secret``, this once. Without a time zone ``expires_at`` is local time.

        ``tenant`` is for an operator: the key is that tenant's, most often its first one.
        """
        body: dict[str, object] = {"name": name}
        body |= {"scopes": [*scopes]} if scopes else {}
        body |= {"expiresAt": expires_at.astimezone().isoformat()} if expires_at is not None else {}
        body |= {"rateLimit": rate_limit} if rate_limit is not None else {}
        path = "/v1/keys" if tenant is None else f"/v1/tenants/{uuid_of(tenant)}/keys"
        return read_reply(KeyReply, self._transport.post(path, body))

    def rotate_key(self, key_id: UUID | str, *, grace: int | None = None) -> KeyReply:
        """A new key like an old one, which works for ``grace`` seconds more; a day when nothing is said.

        Raises:
            Conflict: it is over, or was rotated before.
        """
        body = {} if grace is None else {"grace": grace}
        return read_reply(KeyReply, self._transport.post(f"/v1/keys/{uuid_of(key_id)}/rotate", body))

    def revoke_key(self, key_id: UUID | str) -> None:
        """Stop a key at once."""
        self._transport.send("DELETE", f"/v1/keys/{uuid_of(key_id)}")

    def tenants(self) -> Sequence[TenantReply]:
        """Every tenant, by name."""
        return read_rows(TenantReply, self._transport.get("/v1/tenants"))

    def create_tenant(self, name: str, policy: Mapping[str, object] | None = None) -> TenantReply:
        """A new tenant; ``policy`` has the names of the API, such as ``maxRunning``."""
        return read_reply(TenantReply, self._transport.post("/v1/tenants", {"name": name, **(policy or {})}))

    def change_tenant(self, tenant: UUID | str, policy: Mapping[str, object]) -> TenantReply:
        """Change what ``policy`` names; the rest stays."""
        return read_reply(TenantReply, self._transport.patch(f"/v1/tenants/{uuid_of(tenant)}", policy))


def uuid_of(value: UUID | str) -> UUID:
    """The UUID.

    Raises:
        InvalidField: it is none.
    """
    try:
        return UUID(str(value))
    except ValueError:
        raise InvalidField(f"{str(value)[:100]!r} is not a UUID.", param="uuid") from None
