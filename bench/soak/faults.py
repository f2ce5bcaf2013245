"""What befalls the farm: one kind after another in a shuffled order, soon enough that they overlap."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from bench.soak.house import House
from bench.soak.parts import SECOND
from bench.soak.store import Bucket

GAPS: Final = (6.0, 14.0)  #: seconds from the beginning of one fault to that of the next
AWAY: Final = (6.0, 20.0)  #: seconds that the object store is away
DOWN: Final = (2.0, 8.0)  #: seconds until its server is started again
FROZEN: Final = (34.0, 45.0)  #: seconds that a worker is frozen; its lease is 30
WORKERS: Final = ("worker", SECOND)
RARE: Final = 7  #: hands between two deaths of the whole farm

KILLED: Final[Mapping[str, tuple[str, ...]]] = {
    "API killed": ("api",),
    "local worker killed": WORKERS,
    "remote worker killed": ("remote",),
    "webhooks worker killed": ("webhooks",),
    "scheduler killed": ("scheduler",),
    "Flower killed": ("flower",),
    "Valkey killed": ("valkey",),
    "PostgreSQL killed": ("postgres",),
}
STOPPED: Final = "PostgreSQL stopped at once"
FREEZING: Final = "local worker frozen past its lease"
S3_KILLED: Final = "S3 killed"
S3_SILENT: Final = "S3 silent"
S3_REFUSES: Final = "S3 answers 503"
ALL_KILLED: Final = "the whole farm killed"
KINDS: Final = (*KILLED, STOPPED, FREEZING, S3_KILLED, S3_SILENT, S3_REFUSES, ALL_KILLED)


@dataclass
class Fault:
    """One that happened; moments are seconds of the wall clock, ``ended`` that of the repair where there is one."""

    kind: str
    part: str
    pid: int | None
    began: float
    ended: float | None = None


@dataclass
class Faults:
    """Throws the dice; ``happened`` is in the order of their beginnings."""

    house: House
    bucket: Bucket
    seed: int
    happened: list[Fault] = field(default_factory=list)

    async def run(self, until: float) -> None:
        """Until the monotonic time ``until``, and until the last one is repaired."""
        dice = random.Random(self.seed)
        hand: list[str] = []
        hands = 0
        running: list[asyncio.Task[None]] = []
        while True:
            await asyncio.sleep(dice.uniform(*GAPS))
            if time.monotonic() > until:
                break
            if not hand:
                hand = dice.sample(KINDS, len(KINDS))
                hands += 1
                if hands % RARE != 1:
                    hand.remove(ALL_KILLED)
            running.append(asyncio.create_task(self._happen(hand.pop(), random.Random(dice.random()))))
        await asyncio.gather(*running)

    async def _happen(self, kind: str, dice: random.Random) -> None:
        acts: dict[str, Callable[[random.Random], Awaitable[None]]] = {
            FREEZING: self._freeze,
            S3_KILLED: self._kill_store,
            S3_SILENT: self._silence_store,
            S3_REFUSES: self._refuse_store,
            ALL_KILLED: self._kill_all,
        }
        if kind in acts:
            await acts[kind](dice)
        elif kind == STOPPED:
            self._signal(kind, "postgres", signal.SIGQUIT)
        else:
            self._signal(kind, dice.choice(KILLED[kind]), signal.SIGKILL)

    def _signal(self, kind: str, part: str, number: signal.Signals) -> Fault | None:
        """What is down at the moment is passed over; a part that dies while ``fluxfarm up`` starts would end it."""
        pid = self.house.send(part, number) if self.house.is_up else None
        if pid is None:
            return None
        self.happened.append(Fault(kind, part, pid, time.time()))
        return self.happened[-1]

    async def _freeze(self, dice: random.Random) -> None:
        part = dice.choice(WORKERS)
        fault = self._signal(FREEZING, part, signal.SIGSTOP)
        if fault is None:
            return
        await asyncio.sleep(dice.uniform(*FROZEN))
        if self.house.pids().get(part) == fault.pid:
            self.house.send(part, signal.SIGCONT)
            fault.ended = time.time()

    async def _kill_store(self, dice: random.Random) -> None:
        fault = self._note(S3_KILLED)
        self.bucket.kill()
        await asyncio.sleep(dice.uniform(*DOWN))
        await asyncio.to_thread(self.bucket.start)
        fault.ended = time.time()

    async def _silence_store(self, dice: random.Random) -> None:
        fault = self._note(S3_SILENT)
        self.bucket.send(signal.SIGSTOP)
        await asyncio.sleep(dice.uniform(*AWAY))
        self.bucket.send(signal.SIGCONT)
        fault.ended = time.time()

    async def _refuse_store(self, dice: random.Random) -> None:
        fault = self._note(S3_REFUSES)
        self.bucket.refuses = True
        await asyncio.sleep(dice.uniform(*AWAY))
        self.bucket.refuses = False
        fault.ended = time.time()

    async def _kill_all(self, _dice: random.Random) -> None:
        fault = self._note(ALL_KILLED)
        self.house.kill()
        await asyncio.to_thread(self.house.start)
        fault.ended = time.time()

    def _note(self, kind: str) -> Fault:
        self.happened.append(Fault(kind, kind.split(maxsplit=1)[0], None, time.time()))
        return self.happened[-1]
