"""What a process knows of the providers: figures of the last hour and the breakers, read every few seconds."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from fluxfarm.remotes import Remotes
from fluxfarm.routing import Health
from storage.database import Database
from storage.gates import Breaker, Gate, Gates
from storage.repository import routes
from storage.repository.accounts import OPERATOR

FIGURES: Final = 15.0  #: seconds that the figures count as fresh
BREAKERS: Final = 1.0  #: seconds

Figures = Mapping[tuple[str, str], tuple[float | None, float | None]]


class Board:
    """Shared by the threads of a process; a race only reads twice. Breakers are those of the operator's accounts."""

    def __init__(self, database: Database, remotes: Remotes, gates: Gates) -> None:
        """Reads nothing yet."""
        self._database = database
        self._remotes = remotes
        self._gates = gates
        self._figures: Figures = {}
        self._breakers: Mapping[Gate, Breaker] = {}
        self._read_at = {"figures": -FIGURES, "breakers": -BREAKERS}

    def health(self) -> Mapping[tuple[str, str], Health]:
        """By provider and model. Not to be called within a transaction: it may ask the database and Valkey."""
        if self._is_due("figures", FIGURES):
            with self._database.transaction() as session:
                self._figures = routes.lately(session)
        gates = {name: Gate(name, OPERATOR) for name in self._remotes}
        if self._is_due("breakers", BREAKERS):
            self._breakers = self._gates.look(gates.values())
        return {
            (name, offer.model): _health(
                name, self._breakers.get(gates[name], Breaker()), self._figures.get((name, offer.model), (None, None))
            )
            for name, remote in self._remotes.items()
            for offer in remote.offers
        }

    def _is_due(self, what: str, seconds: float) -> bool:
        now = time.monotonic()
        if now - self._read_at[what] < seconds:
            return False
        self._read_at[what] = now
        return True


def _health(name: str, breaker: Breaker, figures: tuple[float | None, float | None]) -> Health:
    off = f"{name} is off for {breaker.seconds:.0f} s: {breaker.reason}." if breaker.state == "open" else ""
    return Health(off=off, seconds=figures[0], success=figures[1])
