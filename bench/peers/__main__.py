"""``python -m bench.peers [NAME …]``: the farm beside its peers, in one run; writes ``docs/benchmarks.md`` and a plot.

Each peer gets a virtual environment below ``.fluxfarm/peers`` at the first run. All of them stay up while rounds go
around, so that a busy moment of the machine meets everybody; crash and fairness come afterwards, one by one.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from bench.peers.contestants import BareLoop, Contestant, Fluxfarm, PlainCelery, served
from bench.peers.measuring import crash, fairness, memory, one_round
from bench.peers.page import Found, page
from bench.plot import bars
from fluxfarm.catalog import KLEIN_SMALL
from workers.pipeline_small import ensure_small

ROUNDS: Final = 5
PAGE: Final = Path("docs") / "benchmarks.md"
PLOT: Final = Path("docs") / "pictures" / "peers.svg"


def measure(wanted: list[str], log: Path) -> list[Found]:
    """Everybody, or who is named, beside the bare loop.

    Raises:
        SystemExit: a name is nobody's.
    """
    single = Fluxfarm("Fluxfarm, one a call", {"FLUXFARM_BATCH_SIZE": "1"})
    peers: list[Contestant] = [BareLoop(), Fluxfarm(), single, PlainCelery(), *served()]
    names = [peer.name for peer in peers]
    if unknown := set(wanted) - set(names):
        raise SystemExit(f"No such peer: {', '.join(sorted(unknown))}. There are: {', '.join(names)}.")
    found = [Found(peer) for peer in peers if not wanted or peer.name in wanted or isinstance(peer, BareLoop)]
    try:
        for one in found:
            began = time.monotonic()
            one.peer.start()
            one_round(one.peer, 0)  # everything warm
            one.cold = time.monotonic() - began
            _say(f"{one.peer.name} is up")
        for number in range(1, ROUNDS + 1):
            for one in found:
                one.rounds.append(one_round(one.peer, number))
                _say(f"round {number}: {one.peer.name} {one.rounds[-1].rate:.1f}/s")
        for one in found:
            one.megabytes = memory(one.peer.pids())
        for one in found[1:]:
            if one.peer is single:  # it crashes and shares as the farm does
                continue
            one.wait = fairness(one.peer)
            _say(f"{one.peer.name}: {one.wait}")
            one.crash = crash(one.peer, log)
            _say(f"{one.peer.name}: {one.crash}")
    finally:
        for one in found:
            one.peer.stop()
    return found


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(wanted: list[str]) -> None:
    """Measure and write."""
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory(prefix="fluxfarm-peers-") as folder:
        log = Path(folder) / "drawn"
        os.environ |= {"BENCH_MODEL": str(ensure_small(KLEIN_SMALL.slug, Path(folder))), "BENCH_LOG": str(log)}
        found = measure(wanted, log)
    text = page(found, ROUNDS)
    print(text)
    if not wanted:
        PAGE.write_text(text, encoding="utf-8")
        PLOT.write_text(bars("Pictures a second", {one.peer.name: one.rate for one in found}), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
