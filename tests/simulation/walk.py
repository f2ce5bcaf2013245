"""A seeded random walk through the farm: whoever is next takes a step, and anything may go wrong before it.

``run(seed)`` walks once; ``replay(seed)`` walks the same way again and gives the story.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.simulation.actors import Actors
from tests.simulation.rules import Claim
from tests.simulation.tickets import QUEUED, JobRow
from tests.simulation.world import (
    LEASE,
    LOCAL,
    OWNERS,
    PATIENCE,
    REMOTE,
    SWEEP_AFTER,
    Held,
    Process,
    Steps,
    Violation,
)

STEPS: Final = 150
TICKS: Final = (0.5, 2.0, 2.0, 6.0, 6.0, 11.0, 11.0, 31.0, 31.0, 31.0, 125.0)
SKEWS: Final = (0.0, 0.0, 7200.0, -7200.0)
RECOVERY: Final = 130.0  #: seconds from the last fault to the end of all jobs: a lease, two longest back-offs, rounds
ROUNDS: Final = 60
SWEEP_INTERVAL: Final = 5.0  #: seconds
STORY: Final = 40  #: lines


class Walk(Actors):
    """The chance in it."""

    def __init__(self, seed: int, *, traced: bool = False) -> None:
        super().__init__(seed, traced=traced)
        self.numbers = 0
        random = self.random
        for id_ in range(2 + int(random() * 2)):
            self.accept(
                JobRow(
                    id=id_,
                    tenant=OWNERS[int(random() * 2)],
                    queue=REMOTE if random() < 0.25 else LOCAL,
                    lane=int(random() * 2),
                    deadline=self.now + 40 if random() < 0.1 else None,
                ),
                1 + int(random() * 2),
            )

    def walk(self) -> None:
        """Raises Violation."""
        for _ in range(STEPS):
            self.step()
            self.look()
        self.drain()
        self.judge()

    # one step

    def step(self) -> None:
        chance = self.random()
        processes = self.processes
        if chance < 0.68 and processes:
            self.advance(processes[int(self.random() * len(processes))])
            return
        chance = self.random()
        queue = LOCAL if self.random() < 0.7 else REMOTE
        if chance < 0.25:
            self.take_ticket(queue)
        elif chance < 0.43:
            self.start("dispatcher", queue, self.dispatch)
        elif chance < 0.56:
            self.tick(TICKS[int(self.random() * len(TICKS))])
        elif chance < 0.73:
            self.schedule(queue)
        elif chance < 0.93:
            self.fault_of_a_process()
        elif chance < 0.97:
            self.fault_of_the_broker(queue)
        else:
            self.call()

    def process(self, name: str, queue: str) -> Process:
        self.numbers += 1
        return Process(name, self.numbers, queue, SKEWS[int(self.random() * 4)])

    def start(self, name: str, queue: str, what: Callable[[Process], Steps]) -> None:
        me = self.process(name, queue)
        me.steps = what(me)
        self.processes.append(me)
        self.advance(me)

    def advance(self, me: Process) -> None:
        try:
            next(me.steps)
        except StopIteration:
            self.processes.remove(me)

    def join(self, leader: Process, what: Callable[[Process, Held], Steps], held: Held) -> None:
        me = self.process("follower", leader.queue)
        me.crew = leader.crew
        me.crew.append(me)
        me.held = held
        me.steps = what(me, held)
        self.note(f"{me} is drawn along with {leader}")
        self.processes.append(me)

    def take_ticket(self, queue: str) -> None:
        broker = self.brokers[queue]
        if broker:
            me = self.process("worker", queue)
            me.in_hand = 1
            self.popped[queue] += 1
            me.steps = self.render(me, broker.pop(0))
            self.note(f"{me} takes a ticket of {queue}")
            self.processes.append(me)

    def schedule(self, queue: str) -> None:
        chance = self.random()
        if chance < 0.4:
            self.start("sweeper", queue, self.expire)
        elif chance < 0.52:
            self.start("resender", queue, self.resend)
        elif chance < 0.66:
            self.start("ripener", queue, self.ripen)
        elif chance < 0.8:
            self.start("collector", queue, self.sweep_objects)
        else:
            self.start("postman", queue, self.post_webhooks)

    def tick(self, seconds: float) -> None:
        """Time passes; those who live renew what they hold."""
        self.now += seconds
        for me in self.processes:
            if me.held is not None and not me.cut:
                self.renew(me)

    def renew(self, me: Process) -> None:
        held = me.held
        assert held is not None
        if self.record.renew(self.clock(me), [held.claim], LEASE):
            held.renewed_at = self.fresh[held.claim] = self.now
        elif held.stopped is None:
            held.stopped = "lease_lost"

    def call(self) -> None:
        """The caller, or the provider's webhook."""
        chance = self.random()
        jobs = self.record.jobs
        if chance < 0.3:
            for id_, nonce in self.accepted.items():
                self.record.note_remote(id_, nonce, nonce)
        elif jobs:
            job = list(jobs.values())[int(self.random() * len(jobs))]
            if chance < 0.7:
                self.cancel(job)
            else:
                self.start("eraser", job.queue, lambda me: self.erase(me, job))

    # faults

    def fault_of_a_process(self) -> None:
        chance = self.random()
        if chance < 0.2:
            self.hear_a_stop()
        elif chance < 0.42 and self.frozen:
            me = self.frozen.pop(int(self.random() * len(self.frozen)))
            self.note(f"{me} goes on")
            self.processes.append(me)
        elif self.processes:
            me = self.processes[int(self.random() * len(self.processes))]
            if chance < 0.6:
                self.note(f"{me} freezes")
                self.processes.remove(me)
                self.frozen.append(me)
            elif chance < 0.72:
                me.cut = not me.cut
                self.note(f"{me} is cut from the database: {me.cut}")
            elif all(one.held is None or self.may_fail(one.held) for one in me.crew):
                self.kill(me)

    def kill(self, me: Process) -> None:
        self.note(f"{me} is killed")
        for one in me.crew:
            for place in (self.processes, self.frozen):
                if one in place:
                    place.remove(one)
        self.losses[me.queue] += me.in_hand + me.unsent

    def hear_a_stop(self) -> None:
        """Notices come late, to whoever listens by then."""
        notices = self.record.notices
        if notices:
            notice = notices.pop(int(self.random() * len(notices)))
            for me in self.processes:
                held = me.held
                if held is not None and held.stopped is None and not me.cut and self.is_meant(held.claim, notice):
                    held.stopped = "canceled"

    def is_meant(self, claim: Claim, notice: Claim) -> bool:
        return claim == notice

    def fault_of_the_broker(self, queue: str) -> None:
        broker = self.brokers[queue]
        if not broker:
            return
        chance = self.random()
        place = int(self.random() * len(broker))
        if chance < 0.35:
            self.note(f"the ticket {broker.pop(place)} is lost")
            self.losses[queue] += 1
        elif chance < 0.65:
            self.note(f"the ticket {broker[place]} is doubled")
            broker.append(broker[place])
            self.extras[queue] += 1
        elif chance < 0.85:
            broker.reverse()
        else:
            self.note(f"{queue} is flushed")
            self.losses[queue] += len(broker)
            broker.clear()

    # the end

    def drain(self) -> None:
        """Faults stop; everything must come to its end by itself and in time."""
        self.calm = True
        self.note("the faults stop")
        for me in self.frozen:
            if me.held is None or (self.may_fail(me.held) and self.random() < 0.5):
                self.losses[me.queue] += me.in_hand + me.unsent
            else:
                self.processes.append(me)
        self.frozen.clear()
        for me in self.processes:
            me.cut = False
        ended = self.now
        me = self.process("everyone", LOCAL)
        for _ in range(ROUNDS):
            self.round(me)
            open_ = [job for job in self.record.jobs.values() if job.finished_at is None]
            if open_ and self.now - ended > RECOVERY:
                raise Violation(
                    f"job {open_[0].id} is still {open_[0].status} {self.now - ended:.0f} s after the faults"
                )
            moment = self.next_moment()
            if moment is None:
                return
            self.tick(max(moment - self.now + 0.1, SWEEP_INTERVAL))
        raise Violation("the farm does not come to rest")

    def round(self, me: Process) -> None:
        while self.processes:
            self.advance(self.processes[0])
            self.look()
        while self.record.notices:
            self.hear_a_stop()
        for what in (self.ripen, self.expire, self.post_webhooks, self.sweep_objects):
            self.finish_all(what(me))
        for queue, broker in self.brokers.items():
            me.queue = queue
            self.finish_all(self.resend(me))
            self.finish_all(self.dispatch(me))
            while broker:
                worker = self.process("worker", queue)
                self.finish_all(self.render(worker, broker.pop(0)))
                self.finish_all(self.dispatch(me))

    def finish_all(self, steps: Steps) -> None:
        for _ in steps:
            self.look()
        self.look()

    def next_moment(self) -> float | None:
        """When something can happen; None: nothing waits any more."""
        record = self.record
        moments = [at + SWEEP_AFTER for at in record.erasures.values()]
        if record.outbox:
            moments.append(self.now)
        for job in record.jobs.values():
            if job.finished_at is None:
                moments.append(self.now + 5)
                if job.status is QUEUED and job.run_after is not None:
                    moments[-1] = job.run_after
                elif job.status is QUEUED and job.dispatched_at is not None:
                    moments[-1] = job.dispatched_at + PATIENCE
                elif job.lease_expires_at is not None:
                    moments[-1] = min(job.lease_expires_at, self.now + LEASE)
            moments += [
                row.ended_at + SWEEP_AFTER
                for row in job.attempts.values()
                if not row.swept and row.ended_at is not None
            ]
        return min(moments) if moments else None


def run(seed: int, kind: type[Walk] = Walk) -> None:
    """One walk; raises Violation with the seed and the end of its story."""
    try:
        kind(seed).walk()
    except Violation as violation:
        raise Violation(f"{violation} (replay({seed}, {kind.__name__}))\n{replay(seed, kind)}") from None


def replay(seed: int, kind: type[Walk] = Walk) -> str:
    """The last lines of what happened in the walk of this seed."""
    walk = kind(seed, traced=True)
    try:
        walk.walk()
    except Violation as violation:
        walk.note(f"VIOLATION: {violation}")
    return "\n".join((walk.trace or [])[-STORY:])


def first_caught(kind: type[Walk], walks: int) -> tuple[int, str] | None:
    """How many walks it takes to see a promise broken, and which; None: it is not seen."""
    for seed in range(walks):
        try:
            kind(seed).walk()
        except Violation as violation:
            return seed + 1, str(violation)
    return None
