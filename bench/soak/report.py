"""The result of a soak as a page."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.soak.checks import Findings
from bench.soak.faults import Fault
from bench.soak.figures import growth, longest_pause, recoveries, spread
from bench.soak.load import Journal
from bench.soak.receiver import Received
from bench.soak.watch import Seen

MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Everything that a run came to; moments are seconds of the wall clock."""

    seed: int
    day: str
    minutes: float
    rate: float
    began: float
    calmed: float  #: the last fault was repaired
    loaded: float  #: the callers were done
    journal: Journal
    findings: Findings
    faults: Sequence[Fault]
    again: Sequence[float]
    seen: Seen
    received: Received
    taken: int  #: paid calls that the provider took
    stored: int  #: bytes of the data folder and the bucket at the end


def page(outcome: Outcome) -> str:
    """Markdown."""
    broken = "\n".join(f"- {one}" for one in outcome.findings.broken) or "None."
    fault_minutes, calm = (outcome.calmed - outcome.began) / 60, (outcome.loaded - outcome.calmed) / 60
    command = f"python -m bench.soak --minutes {outcome.minutes:g} --seed {outcome.seed}"
    machine = f"two shared CPU cores ({platform.machine()}), Python {platform.python_version()}"
    return f"""# Soak: the last run

{outcome.day}, `{command}`: {machine}, PostgreSQL 18 and
Valkey 9 as `fluxfarm up` runs them (durable), objects in S3 (rclone) behind a door that can refuse, the settings as
shipped (lease 30 s, sweep 5 s). A second local worker, and a stand-in of fal for the remote one. Callers make
about {outcome.rate:g} calls a second for {fault_minutes:.1f} minutes of faults and {calm:.1f} minutes of calm.

{_table("what", "figure", _promises(outcome))}

Broken promises:

{broken}

From the beginning of a fault, and from its repair where there is one, until the next job of anybody ended: seconds,
median and longest. The faults overlap: the next one begins 6 to 14 s after the last one.

{_recoveries(outcome)}

What the processes held at the beginning and at the end of the calm, under the same load and without faults:

{_growth(outcome)}
"""


def _promises(outcome: Outcome) -> Iterable[tuple[str, str]]:
    journal, found, seen = outcome.journal, outcome.findings, outcome.seen
    kinds = Counter(one.kind for one in outcome.faults)
    window = (outcome.began, outcome.calmed)
    yield "jobs that were promised (202, or a campaign's 201)", f"{journal.acknowledged:,}"
    for state in ("SUCCESS", "CANCELED", "FAILED", "QUEUED", "RUNNING"):
        yield f"of these {state}", f"{found.states[state]:,}"
    yield "FAILED, by code", ", ".join(f"{code} {count}" for code, count in found.failures.items()) or "-"
    yield (
        "cancels that were answered: stopped, too late",
        (f"{sum(journal.canceled.values()):,}, {len(journal.canceled) - sum(journal.canceled.values()):,}"),
    )
    yield "faults", f"{len(outcome.faults):,} of {len(kinds)} kinds"
    yield "attempts, beyond the first", f"{found.attempts:,}, {found.extra_attempts:,}"
    yield "pictures read from the bucket and compared", f"{found.objects:,} ({found.bytes / MIB:.1f} MiB)"
    yield "charges in the ledger", f"{found.charges:,}"
    yield "calls that the provider took", f"{outcome.taken:,}"
    yield "webhook messages, tries that arrived", f"{found.messages:,}, {outcome.received.tries:,}"
    yield "answers to the callers", ", ".join(f"{what} {count:,}" for what, count in journal.answers.most_common())
    yield "slowest answer", f"{journal.slowest:.1f} s"
    yield "calls that were never answered", f"{len(journal.unanswered)}"
    yield "an interrupted job runs again after", f"{spread(outcome.again)} s (median, longest of {len(outcome.again)})"
    yield "probes answered within 2 s, during the faults", f"{seen.serving(*window):.1%}"
    yield "longest time without an answered probe", f"{seen.longest_silence(*window):.1f} s"
    yield "longest time in which no job ended", f"{longest_pause(found.finished, *window):.1f} s"
    yield "most open jobs at once", f"{max((count for _, count in seen.open_jobs), default=0):,}"
    yield (
        "connections to PostgreSQL: most, at the end of the calm",
        (
            f"{max((count for _, count in seen.connections), default=0)}, "
            f"{next((count for at, count in reversed(seen.connections) if at <= outcome.loaded), 0)}"
        ),
    )
    yield "all at its end after the load", f"{found.drained:.0f} s"
    yield "disk at the end", f"{outcome.stored / MIB:.0f} MiB"


def _recoveries(outcome: Outcome) -> str:
    rows = [
        (one.kind, str(one.count), spread(one.ended), spread(one.repaired))
        for one in recoveries(outcome.faults, outcome.findings.finished)
    ]
    lines = ["| fault | times | a job ends | after the repair |", "|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _growth(outcome: Outcome) -> str:
    lines = ["| process | memory, MiB | open files | threads |", "|---|---|---|---|"]
    for one in growth(outcome.seen, outcome.calmed, outcome.loaded):
        memory = f"{one.before.memory / MIB:.0f} to {one.after.memory / MIB:.0f}"
        files, threads = (f"{getattr(one.before, name)} to {getattr(one.after, name)}" for name in ("files", "threads"))
        lines.append(f"| {one.part} | {memory} | {files} | {threads} |")
    return "\n".join(lines)


def _table(left: str, right: str, rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join([f"| {left} | {right} |", "|---|---|", *(f"| {one} | {other} |" for one, other in rows)])
