"""Random walks over the real outbox: senders die, tickets get lost and come twice, answers get lost, time passes.

Every message reaches its receiver at least once, is closed once, and is out with one sender at a time. Outboxes that
are broken by one small change are caught.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from fluxfarm.jobs import JobState
from storage.database import Database
from storage.records import Tenant
from storage.repository import deliveries, endpoints
from storage.repository.deliveries import Answer, Message
from tests.making import make_job

WALKS, STEPS = 25, 50
MUTANT_WALKS = 60
LEASE = 10.0
GOOD, BAD = Answer(ms=1, status=200), Answer(ms=1, status=500)
PASS_TIME = (
    "UPDATE webhook_deliveries SET next_attempt_at = next_attempt_at - make_interval(secs => :s), "
    "ticketed_at = ticketed_at - make_interval(secs => :s), ended_at = ended_at - make_interval(secs => :s), "
    "lease_expires_at = lease_expires_at - make_interval(secs => :s)"
)


class Violation(AssertionError):
    """A promise of the outbox was broken."""


@dataclass
class Outbox:
    """The tables, the broker's tickets, the senders, and what the receiver got; seconds pass only by ``wait``."""

    session: Session
    dice: random.Random
    now: float = 0.0
    tickets: list[str] = field(default_factory=list)
    held: list[tuple[Message, float]] = field(default_factory=list)  #: and when its lease ends
    received: Counter[str] = field(default_factory=Counter)
    closed: Counter[str] = field(default_factory=Counter)

    def issue(self) -> None:
        found = deliveries.issue(self.session, room=self.dice.randint(1, 4))
        self.tickets += [one for one in found for _ in range(self.dice.choice([0, 1, 1, 1, 2]))]

    def claim(self) -> None:
        if not self.tickets:
            return
        ticket = self.tickets.pop(self.dice.randrange(len(self.tickets)))
        message = deliveries.claim(self.session, ticket, LEASE)
        if message is None:
            return
        if any(one.id == message.id and until > self.now for one, until in self.held):
            raise Violation("two senders hold one message")
        if self.closed[message.id]:
            raise Violation("a message that was closed is sent again")
        self.held.append((message, self.now + LEASE))

    def send(self) -> None:
        """One sender goes on; in most cases it lives to hear the answer and to write it down."""
        if not self.held:
            return
        message, _ = self.held.pop(self.dice.randrange(len(self.held)))
        arrives, lives = self.dice.random() < 0.6, self.dice.random() < 0.7
        self.received[message.id] += arrives
        if lives and arrives:
            self.closed[message.id] += deliveries.succeed(self.session, message, GOOD)
        elif lives:
            deliveries.postpone(self.session, message, BAD, wait=5.0, pause=0.0)

    def wait(self, seconds: float | None = None) -> None:
        passed = seconds or self.dice.choice([1.0, 6.0, 11.0, 31.0])
        self.now += passed
        self.session.execute(text(PASS_TIME), {"s": passed})

    def forget(self) -> None:
        deliveries.forget(self.session, older_than=20.0)

    def die(self) -> None:
        self.held = [one for one in self.held if self.dice.random() < 0.5]

    def drain(self) -> None:
        """Repair everything: what is still to be told is told."""
        self.tickets, self.held = [], []
        for _ in range(4):
            self.wait(deliveries.TICKET_PATIENCE + 1)
            for id_ in deliveries.issue(self.session, room=100):
                message = deliveries.claim(self.session, id_, LEASE)
                if message is not None:
                    self.received[id_] += 1
                    self.closed[id_] += deliveries.succeed(self.session, message, GOOD)

    def judge(self, messages: list[str]) -> None:
        for id_ in messages:
            if not self.received[id_]:
                raise Violation("a message never came")
            if self.closed[id_] != 1:
                raise Violation(f"a message was closed {self.closed[id_]} times")


def walk(session: Session, seed: int, messages: list[str], outbox_class: type[Outbox] = Outbox) -> None:
    outbox = outbox_class(session, random.Random(seed))
    moves: list[Callable[[], None]] = [outbox.issue, outbox.claim, outbox.send, outbox.wait, outbox.forget, outbox.die]
    for _ in range(STEPS):
        outbox.dice.choices(moves, weights=[4, 6, 3, 4, 1, 0.3])[0]()
    outbox.drain()
    outbox.judge(messages)


@contextmanager
def afresh(session: Session) -> Iterator[None]:
    """Whatever a walk writes is undone, so that each begins with the same messages."""
    with session.begin_nested() as savepoint:
        yield
        savepoint.rollback()


@pytest.fixture
def messages(database: Database, tenant: Tenant) -> list[str]:
    with database.transaction() as session:
        made = [endpoints.create(session, tenant.id, f"https://{name}.example/", "sealed").id for name in "ab"]
    jobs = [make_job(database, tenant, webhook_id=made[n % 2]) for n in range(3)]
    with database.transaction() as session:
        for job in jobs:
            deliveries.add(session, job.uuid, JobState.SUCCESS)
        return list(session.scalars(text("SELECT id FROM webhook_deliveries")))


def test_every_message_arrives_and_is_closed_once(database: Database, messages: list[str]) -> None:
    with database.transaction() as session:
        for seed in range(WALKS):
            with afresh(session):
                walk(session, seed, messages)


class ClosedBeforeItIsSent(Outbox):
    """The row goes before the receiver has the message."""

    def send(self) -> None:
        if self.held:
            message, _ = self.held.pop()
            self.closed[message.id] += deliveries.succeed(self.session, message, GOOD)
            self.received[message.id] += self.dice.random() < 0.6


LEASED = "AND coalesce(delivery.lease_expires_at, '-infinity') <= now()"
FENCED = "AND attempts = :number AND state = 'pending'"
#: what is broken: the statement, and what of it is replaced by what
BROKEN: dict[str, tuple[str, dict[str, str]]] = {
    "forgets what is not delivered": (
        "FORGET",
        {"ended_at < now()": "coalesce(ended_at, next_attempt_at) < now()", "AND state <> 'pending'": ""},
    ),
    "no lease": ("CLAIM", {LEASED: ""}),
    "a late answer opens it again": ("POSTPONE", {FENCED: "", "SET next": "SET state = 'pending', next"}),
    "closes it twice": ("SUCCEED", {"AND attempts = :number AND state <> 'delivered'": ""}),
    "tickets are never sent again": (
        "ISSUE_TO_ALL",
        {"coalesce(ticketed_at, '-infinity') <": "coalesce(ticketed_at + interval '1 year', '-infinity') <"},
    ),
}


def caught(database: Database, messages: list[str], outbox_class: type[Outbox] = Outbox) -> Violation | None:
    for seed in range(MUTANT_WALKS):
        try:
            with database.transaction() as session, afresh(session):
                walk(session, seed, messages, outbox_class)
        except Violation as found:
            return found
    return None


def test_an_early_delete_is_caught(database: Database, messages: list[str]) -> None:
    assert caught(database, messages, ClosedBeforeItIsSent) is not None


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_outbox_is_caught(
    database: Database, messages: list[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    statement, changes = BROKEN[name]
    broken: str = getattr(deliveries, statement).text
    for sound, unsound in changes.items():
        assert sound in broken
        broken = broken.replace(sound, unsound)
    monkeypatch.setattr(deliveries, statement, text(broken))
    assert caught(database, messages) is not None
