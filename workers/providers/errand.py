"""One attempt of a remote job: who is asked, the paid calls, the way back of the pictures.

The order is what makes a crash harmless: the intent is committed, then the one POST, then the ticket is committed, then
the polls. The next attempt takes over every call that has a ticket and repeats none that has not.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_UP, Decimal
from typing import TYPE_CHECKING, Final, TypeVar
from uuid import UUID, uuid4

import structlog
from PIL.Image import Image

from fluxfarm.airecord import Problem
from fluxfarm.errors import (
    DatabaseUnavailable,
    LeaseLost,
    OutcomeUnknown,
    ProviderAccount,
    ProviderBusy,
    ProviderError,
    ProviderFailed,
    ResultLost,
)
from fluxfarm.pricing import SMALLEST
from fluxfarm.routing import Candidate
from storage.gates import ACCOUNT_OPEN, Gate
from storage.remote_records import RemoteCall
from storage.repository import attempts, calls
from storage.repository.accounts import OPERATOR
from storage.repository.calls import Intent
from workers import spans
from workers.leases import Held
from workers.providers.choice import choose
from workers.providers.contract import Call, Finished, Ticket
from workers.providers.drawn import Drawn, Keep, Stored
from workers.providers.flight import Flight

if TYPE_CHECKING:
    from workers.providers.remote import RemoteRenderer

TRIES: Final = 2  #: of one submit at one provider that is busy
BACKOFF: Final = 1.0  #: seconds; the n-th pause is up to BACKOFF * 2**n, evenly spread, unless the provider says more
LONGEST_BACKOFF: Final = 30.0  #: seconds
SLOT_PAUSE: Final = 0.5  #: seconds between two looks for a free slot
HOOK_PAUSE: Final = 2.0  #: seconds between two looks for a lost ticket, unless its webhook wakes us
DATABASE_PAUSE: Final = 0.5  #: seconds
FALLS_BACK: Final = (ProviderBusy, ProviderFailed, ProviderAccount, ResultLost)  #: another one may do it

Answer = TypeVar("Answer")
log = structlog.get_logger()


@dataclass
class Errand:
    """What belongs to one attempt."""

    renderer: RemoteRenderer
    held: Held
    references: tuple[bytes, ...]
    keep: Keep
    begun: float = field(default_factory=time.monotonic)
    flights: list[Flight] = field(default_factory=list)
    missing: int = 0  #: pictures that this attempt must ask for
    stored: dict[int, Stored] = field(default_factory=dict)  #: pictures that are in the store already

    def run(self) -> Drawn:
        """Draw the whole job.

        Raises:
            ProviderError: how it ended; open calls that another attempt may take over stay open.
            BudgetExceeded: what is left to do is beyond a budget.
            Canceled, LeaseLost: the job is no longer ours.
        """
        request = self.held.claim.request
        known = self._transact(lambda session: calls.of_job(session, self.held.claim.uuid))
        for call in known:
            self.stored |= {int(one["n"]): one for one in call.kept or ()}
        opened = [call for call in known if call.state in calls.OPEN]
        if known:  # an attempt that only takes over weighs nobody: it says whose call it follows
            said = {"provider": known[-1].provider, "model": known[-1].model}
            self._transact(lambda session: attempts.routed(session, self.held.claim, said))
        for call in opened:
            self._take_over(call)
        covered = {*self.stored, *(n for call in opened for n in call.images)}
        missing = tuple(n for n in range(request.n) if n not in covered)
        self.missing = len(missing)
        chosen = choose(self.renderer, self.held, missing, opened, self.references) if missing else None
        try:
            if chosen is not None:
                self._launch_all(chosen, missing)
            self._follow()
        except FALLS_BACK:
            self._save_what_came()
            raise
        finally:
            for flight in self.flights:
                flight.span.end("left_open")  # unless it ended; another attempt may follow the call
        return self._drawn()

    # --- submit --------------------------------------------------------------------------------------------------

    def _launch_all(self, chosen: Candidate, missing: Sequence[int]) -> None:
        """Submit a call for every group of images; the first that fails for good ends it."""
        offer = self.renderer.remotes[chosen.provider].offer(chosen.model)
        assert offer is not None
        size = offer.images_per_call
        for start in range(0, len(missing), size):
            self._launch(chosen, tuple(missing[start : start + size]))

    def _launch(self, chosen: Candidate, images: tuple[int, ...]) -> None:
        for left in reversed(range(TRIES)):
            try:
                self._submit(chosen, images)
            except ProviderBusy as error:
                if not left or (error.retry_after or 0.0) > LONGEST_BACKOFF:
                    raise
                spread = random.uniform(0, BACKOFF * 2 ** (TRIES - left))  # noqa: S311 - jitter
                self.held.pause(min(max(spread, error.retry_after or 0.0), LONGEST_BACKOFF))
            else:
                return

    def _submit(self, chosen: Candidate, images: tuple[int, ...]) -> None:
        """The intent, the one POST, the ticket."""
        renderer, claim = self.renderer, self.held.claim
        remote = renderer.remotes[chosen.provider]
        account = self._transact(lambda session: renderer.account(session, remote, claim.tenant_id, own=chosen.own_key))
        nonce = uuid4()
        gate = Gate(remote.name, account.name)
        self._pass(gate, nonce)
        hook = renderer.webhook_url(remote, nonce)
        price = (chosen.charge * len(images) / self.missing).quantize(SMALLEST, ROUND_UP)
        call = self._call(chosen, images, nonce, hook)
        intent = Intent(
            nonce=nonce,
            job=claim.uuid,
            attempt=claim.attempt,
            images=images,
            provider=remote.name,
            account=account.name,
            model=chosen.model,
            price=price,
            hooked=hook is not None,
        )
        if not self._transact(lambda session: calls.intend(session, intent)):
            raise LeaseLost("Another attempt owns the job.")
        flight = Flight(nonce, images, renderer.adapter(remote.name), account, price)
        flight.span = spans.call(self.held.span, remote.name, chosen.model, flight.images)
        self.flights.append(flight)
        try:
            self._receive(flight, flight.provider.submit(call, account))
        except OutcomeUnknown as error:
            self._await_ticket(flight, error, hooked=intent.hooked)
        except ResultLost as error:  # it was drawn and is paid
            self._end_badly(flight, error, cost=flight.cost)
            raise
        except ProviderError as error:
            self._end_badly(flight, error)
            self.flights.remove(flight)  # nothing came of it, and another try may
            raise

    def _receive(self, flight: Flight, answer: Ticket | Finished) -> None:
        if isinstance(answer, Finished):
            flight.finished = answer
            self._land(flight)
            self._keep(flight)  # it cannot be asked for again
            return
        flight.ticket = answer
        ticket = {name: getattr(answer, name) for name in answer.__slots__}
        self._insist(lambda session: calls.submitted(session, flight.nonce, ticket))

    def _call(self, chosen: Candidate, images: tuple[int, ...], nonce: UUID, hook: str | None) -> Call:
        request = self.held.claim.request
        offer = self.renderer.remotes[chosen.provider].offer(chosen.model)
        assert offer is not None
        return Call(
            offer=offer,
            prompt=request.prompt,
            width=request.width,
            height=request.height,
            seeds=tuple(request.seeds[n] for n in images),
            steps=request.steps,
            guidance=request.guidance,
            output_format=request.output_format,
            output_quality=request.output_quality,
            references=self.references,
            extra=request.options | ({"prompt_upsampling": True} if request.prompt_upsampling else {}),
            nonce=nonce,
            webhook_url=hook,
        )

    def _pass(self, gate: Gate, nonce: UUID) -> None:
        """Through the breaker, into a slot, within the pace.

        Raises:
            ProviderBusy: not within the patience.
        """
        gates, remote = self.renderer.gates, self.renderer.remotes[gate.provider]
        breaker = gates.admit(gate)
        if breaker.state == "open":
            raise ProviderBusy(f"{gate.provider} is off: {breaker.reason}.", retry_after=breaker.seconds)
        until = time.monotonic() + self.renderer.settings.remote_patience
        while not (gates.enter(gate, nonce, remote.in_flight) and gates.within_pace(gate, remote.per_minute)):
            if time.monotonic() > until:
                gates.leave(gate, nonce)
                raise ProviderBusy(f"All {remote.in_flight or remote.per_minute} places at {gate.provider} are taken.")
            self.held.pause(SLOT_PAUSE)

    # --- calls of earlier attempts -------------------------------------------------------------------------------

    def _take_over(self, call: RemoteCall) -> None:
        """Follow a call that an attempt before made; without a ticket it is only waited for, never made again."""
        claim, own = self.held.claim, call.account != OPERATOR
        remote = self.renderer.remotes.get(call.provider)
        if remote is None:
            raise ProviderAccount(f"{call.provider} is no longer configured here.")
        account = self._transact(lambda session: self.renderer.account(session, remote, claim.tenant_id, own=own))
        flight = Flight(call.nonce, tuple(call.images), self.renderer.adapter(remote.name), account, call.price)
        flight.span = spans.call(self.held.span, remote.name, call.model, flight.images)
        self.flights.append(flight)
        log.info("call_taken_over", job=str(claim.uuid), provider=call.provider, state=call.state)
        if call.ticket is not None:
            flight.ticket, flight.due = Ticket(**call.ticket), time.monotonic()
            return
        message = f"{call.provider} may have been called and nobody knows its answer; it is not called again."
        self._await_ticket(flight, OutcomeUnknown(message), hooked=call.hooked)

    def _await_ticket(self, flight: Flight, error: OutcomeUnknown, *, hooked: bool) -> None:
        """The provider's webhook may bring a lost ticket; else the call counts as paid, and is not made again."""
        self.renderer.gates.report(self._gate(flight), good=False)
        until = time.monotonic() + (self.renderer.settings.remote_patience if hooked else 0.0)
        while True:
            call = self._transact(lambda session: calls.read(session, flight.nonce))
            if call is not None and call.ticket is not None:
                flight.ticket, flight.due = Ticket(**call.ticket), time.monotonic()
                return
            if time.monotonic() >= until:
                break
            self.held.pause(HOOK_PAUSE)
        self._end_badly(flight, error, cost=flight.price, told=True)
        raise error

    # --- polls ---------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        """Poll every call until all are over; the first failure is raised when the others are over too.

        A failure that no other provider may mend (moderated, refused, unknown) is raised at once.
        """
        while waiting := [flight for flight in self.flights if not flight.is_over]:
            for flight in waiting:
                if flight.due <= time.monotonic():
                    self._look_after(flight)
            self._report()
            left = min((flight.due for flight in self.flights if not flight.is_over), default=0.0) - time.monotonic()
            if self.held.pause(max(left, 0.0)):
                for flight in waiting:
                    flight.due = time.monotonic()  # its provider's webhook came
        for flight in self.flights:
            if flight.error is not None:
                raise flight.error

    def _look_after(self, flight: Flight) -> None:
        settings = self.renderer.settings
        remote = self.renderer.remotes[flight.provider.name]
        try:
            flight.poll(timeout=settings.remote_timeout, patience=settings.remote_patience)
            self.renderer.gates.enter(self._gate(flight), flight.nonce, remote.in_flight)
            if flight.finished is not None:
                self._land(flight)
        except (ResultLost, OutcomeUnknown) as error:
            self._end_badly(flight, error, cost=flight.cost)
        except ProviderError as error:
            self._end_badly(flight, error)
        if flight.error is not None and not isinstance(flight.error, FALLS_BACK):
            raise flight.error

    def _land(self, flight: Flight) -> None:
        """Fetch the pictures of a finished call, and tell the breaker."""
        request = self.held.claim.request
        flight.fetch(self.held, request.width, request.height)
        self.renderer.gates.report(self._gate(flight), good=True)
        self.renderer.gates.leave(self._gate(flight), flight.nonce)
        flight.span.end()

    def _report(self) -> None:
        request = self.held.claim.request
        made = sum(1.0 if one.is_over else one.progress for one in self.flights) + len(self.stored)
        total = request.steps * request.n
        self.held.on_step(min(int(made * request.steps), total), total)

    # --- the end -------------------------------------------------------------------------------------------------

    def _end_badly(
        self, flight: Flight, error: ProviderError, *, cost: Decimal = Decimal(0), told: bool = False
    ) -> None:
        """Close the call in the record, and tell the breaker whether it is the provider's fault."""
        flight.error = error
        flight.span.end(error.code)
        gate, gates = self._gate(flight), self.renderer.gates
        problem = Problem(code=error.code, message=error.message, retryable=error.retryable)
        self._insist(lambda session: calls.failed(session, flight.nonce, problem, cost))
        gates.leave(gate, flight.nonce)
        if isinstance(error, ProviderAccount):
            gates.trip(gate, error.message.rstrip("."), error.retry_after or ACCOUNT_OPEN)
        elif not told:
            gates.report(gate, good=not isinstance(error, (*FALLS_BACK, OutcomeUnknown)))

    def _save_what_came(self) -> None:
        """Another attempt goes on: what is paid and here is put into the store for it."""
        for flight in self.flights:
            if flight.pictures and flight.error is None and not set(flight.images) <= set(self.stored):
                self._keep(flight)

    def _keep(self, flight: Flight) -> None:
        request = self.held.claim.request
        kept = [self.keep(n, picture, _seed(seed, request.seeds[n])) for n, (picture, seed) in flight.pictures.items()]
        self.stored |= {int(one["n"]): one for one in kept}
        self._insist(lambda session: calls.keep(session, flight.nonce, kept, flight.cost))

    def _drawn(self) -> Drawn:
        request = self.held.claim.request
        pictures: dict[int, tuple[Image, int | None]] = {}
        for flight in self.flights:
            pictures |= {n: found for n, found in flight.pictures.items() if n not in self.stored}
        unsettled = [flight for flight in self.flights if not set(flight.images) <= set(self.stored)]
        charged = sum((flight.cost for flight in unsettled if flight.account.name == OPERATOR), Decimal(0))
        first = min((flight.first_byte for flight in self.flights if flight.first_byte), default=time.monotonic())
        finished = [flight.finished for flight in self.flights if flight.finished is not None]
        seeds = [_seed(pictures[n][1] if n in pictures else None, request.seeds[n]) for n in range(request.n)]
        timings = {"render": time.monotonic() - self.begun, "first_byte": first - self.begun}
        inside = [one.seconds for one in finished if one.seconds is not None]
        return Drawn(
            images=[self.stored[n] if n in self.stored else pictures[n][0] for n in range(request.n)],
            revision=next((one.revision for one in finished if one.revision), ""),
            timings=timings | ({"provider": max(inside)} if inside else {}),
            seeds=tuple(seeds),
            provider=self.flights[0].provider.name if self.flights else "remote",
            cost=charged,
            calls={flight.nonce: flight.cost for flight in unsettled},
        )

    # --- the record ----------------------------------------------------------------------------------------------

    def _gate(self, flight: Flight) -> Gate:
        return Gate(flight.provider.name, flight.account.name)

    def _transact(self, work: Callable[..., Answer]) -> Answer:
        """Read or write in one transaction, as long as the lease may hold while the database is away."""
        while True:
            try:
                with self.renderer.database.transaction() as session:
                    return work(session)
            except DatabaseUnavailable:
                self.held.pause(DATABASE_PAUSE)

    def _insist(self, work: Callable[..., Answer]) -> None:
        """Write a fact that money hangs on, whether the job is still ours or not."""
        until = time.monotonic() + self.renderer.settings.remote_patience
        while True:
            try:
                with self.renderer.database.transaction() as session:
                    work(session)
                    return
            except DatabaseUnavailable:
                if time.monotonic() > until:
                    raise LeaseLost("The database was away for longer than the lease.") from None
                time.sleep(DATABASE_PAUSE)


def _seed(told: int | None, asked: int) -> int:
    """What the provider says it drew with, as far as the record can hold it."""
    return told if told is not None and 0 <= told < 2**63 else asked
