"""The remote renderer: sends a job to the provider that suits it, and waits for the pictures."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from decimal import Decimal
from typing import Final
from uuid import UUID

import structlog
from pydantic import SecretStr

from fluxfarm.airecord import Problem
from fluxfarm.errors import Canceled, FluxfarmError, ProviderAccount
from fluxfarm.remotes import Remote, Remotes
from fluxfarm.request import RenderRequest
from fluxfarm.settings import Settings
from storage.board import Board
from storage.database import Database, Session
from storage.gates import Gate, Gates
from storage.repository import accounts, calls, jobs, ledger
from storage.repository.accounts import OPERATOR, own_account
from storage.repository.calls import LEFT_BEHIND
from storage.sealing import Sealer
from workers.leases import Held
from workers.pipeline_previews import OnPreview
from workers.providers.adapters import adapter_for
from workers.providers.contract import Account, Provider, Ticket
from workers.providers.drawn import Drawn, Keep
from workers.providers.errand import Errand
from workers.turns import Take

HOOKED: Final = ("fal", "replicate")  #: protocols whose webhooks can be verified

TAKEN_BACK: Final = Problem(code=Canceled.code, message="The provider took the call back.", retryable=False)

log = structlog.get_logger()


class RemoteRenderer:
    """One for all threads of a remote worker; an ``Errand`` holds what belongs to one attempt."""

    name: Final = "remote"
    device: Final = "remote"

    def __init__(self, settings: Settings, database: Database) -> None:
        """Connects to nothing yet."""
        self.settings = settings
        self.database = database
        self.remotes = Remotes.from_settings(settings)
        self.gates = Gates(settings)
        self.board = Board(database, self.remotes, self.gates)
        self._sealer = Sealer.from_settings(settings)
        self._adapters: dict[str, Provider] = {name: adapter_for(remote) for name, remote in self.remotes.items()}

    @property
    def models(self) -> tuple[str, ...]:
        """Slugs that a configured provider offers."""
        remotes = self.remotes.configured or tuple(self.remotes.values())
        return tuple(dict.fromkeys(offer.model for remote in remotes for offer in remote.offers))

    def turn(self) -> AbstractContextManager[Take]:
        """Nobody waits for anybody."""
        return nullcontext(_at_once)

    def most(self, request: RenderRequest) -> int:  # noqa: ARG002 - see Renderer
        """A provider is given one job at a time."""
        return 1

    def warm_up(self) -> None:
        """There is nothing to load."""

    def draw(
        self,
        held: Held,
        references: tuple[bytes, ...],
        keep: Keep,
        on_preview: OnPreview | None = None,  # noqa: ARG002 - providers show none
    ) -> Drawn:
        """See ``Renderer.draw``; open calls of earlier attempts are taken over, none is made twice."""
        return Errand(self, held, references, keep).run()

    def adapter(self, name: str) -> Provider:
        """The adapter of a provider.

        Raises:
            ProviderAccount: the settings no longer name it.
        """
        if name not in self._adapters:
            raise ProviderAccount(f"{name} is no longer configured here.")
        return self._adapters[name]

    def account(self, session: Session, remote: Remote, tenant_id: UUID, *, own: bool) -> Account:
        """Whose key pays.

        Raises:
            ProviderAccount: there is no such key any more.
        """
        name, key, account_id = OPERATOR, remote.key, remote.account_id
        if own:
            found = accounts.sealed(session, tenant_id, remote.name)
            if found is None:
                raise ProviderAccount(f"The tenant's own key at {remote.name} was deleted.")
            name, key = own_account(tenant_id), SecretStr(self._sealer.open(found[0]))
            account_id = found[1] or account_id
        return Account(name=name, key=key, base_url=remote.base_url, account_id=account_id)

    def webhook_url(self, remote: Remote, nonce: UUID) -> str | None:
        """Where the provider may tell of the end: only where it can be verified and can reach the farm."""
        if remote.protocol == "replicate" and not self.settings.replicate_webhook_secret.get_secret_value():
            return None
        reachable = self.settings.public_url.startswith(("https://", remote.base_url.partition("://")[0] + "://"))
        if remote.protocol not in HOOKED or not self.settings.public_url or not reachable:
            return None
        return f"{self.settings.base_url}/v1/inbound/{remote.name}/{nonce}"

    def wind_up(self, held: Held) -> None:
        """Cancel the open calls of a job that is over; what a provider cannot take back is paid.

        A job that only went to another attempt keeps its calls: that one follows them.
        """
        claim = held.claim
        with self.database.transaction() as session:
            if jobs.is_alive(session, claim.uuid):
                return
            found = [call for call in calls.of_job(session, claim.uuid) if call.state in calls.OPEN]
        for call in found:
            cancelled = call.ticket is not None and self._cancel(
                call.provider, call.account, claim.tenant_id, call.ticket
            )
            problem, cost = (TAKEN_BACK, Decimal(0)) if cancelled else (LEFT_BEHIND, call.price)
            with self.database.transaction() as session:
                calls.failed(session, call.nonce, problem, cost)
                ledger.close(session, claim.uuid)
            self.gates.leave(Gate(call.provider, call.account), call.nonce)

    def _cancel(self, provider: str, account: str, tenant_id: UUID, ticket: dict[str, str]) -> bool:
        try:
            with self.database.transaction() as session:
                paying = self.account(session, self.remotes[provider], tenant_id, own=account != OPERATOR)
            return self.adapter(provider).cancel(Ticket(**ticket), paying)
        except (FluxfarmError, KeyError) as error:
            log.warning("cancel_failed", provider=provider, error=getattr(error, "code", type(error).__name__))
            return False

    def give_up_device(self) -> None:
        """There is no device."""

    def close(self) -> None:
        """Give the connections back."""
        self.gates.close()


def _at_once() -> None:
    """There is nothing to take."""
