"""From what happened and what was seen to figures: how soon a job ended, ran again, and what the processes held."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from statistics import median

from bench.soak.faults import ALL_KILLED, KINDS, Fault
from bench.soak.house import House
from bench.soak.watch import Sample, Seen

#: of each job that lost a worker: which one, and when the next attempt began
AGAIN = """
    SELECT lost.worker, extract(epoch FROM lost.started_at), extract(epoch FROM again.started_at)
      FROM attempts AS lost JOIN attempts AS again ON again.job_uuid = lost.job_uuid AND again.number = lost.number + 1
     WHERE lost.error->>'code' = 'worker_lost'
"""


@dataclass(frozen=True, slots=True)
class Recovery:
    """Of one kind of fault: how many happened, and the seconds until a job ended, from the beginning and the repair."""

    kind: str
    count: int
    ended: Sequence[float]
    repaired: Sequence[float]


def recoveries(faults: Sequence[Fault], finished: Sequence[float]) -> list[Recovery]:
    """By kind; a fault after which no job ended is left out, as the load was over."""
    return [
        Recovery(
            kind,
            len(own := [one for one in faults if one.kind == kind]),
            list(_until(finished, (one.began for one in own))),
            list(_until(finished, (one.ended for one in own if one.ended is not None))),
        )
        for kind in KINDS
    ]


def _until(finished: Sequence[float], moments: Iterable[float]) -> Iterator[float]:
    for moment in moments:
        after = bisect_right(finished, moment)
        if after < len(finished):
            yield finished[after] - moment


def longest_pause(finished: Sequence[float], since: float, until: float) -> float:
    """The longest time in seconds in which no job ended."""
    inside = [since, *(one for one in finished if since <= one < until), until]
    return max(after - before for before, after in pairwise(inside))


def running_again(house: House, faults: Sequence[Fault]) -> list[float]:
    """Seconds from the kill of a worker, or from its freezing, until each job that it had ran again.

    Jobs that had to wait for the whole farm meanwhile are left out.
    """
    found, outages = [], [one.began for one in faults if one.kind == ALL_KILLED]
    for worker, began, again in house.sql(AGAIN):
        pid = int(str(worker).rpartition(":")[2])
        moments = [one.began for one in faults if one.pid == pid and one.began >= float(began) - 1]
        if moments and not any(min(moments) < outage < float(again) for outage in outages):
            found.append(float(again) - min(moments))
    return found


@dataclass(frozen=True, slots=True)
class Growth:
    """What a process held when the calm began and when it ended: bytes, open files, threads."""

    part: str
    before: Sample
    after: Sample


def growth(seen: Seen, since: float, until: float) -> list[Growth]:
    """Of each process that lived through the calm."""
    found = []
    inside = [one for one in seen.samples if since <= one.at <= until]
    for part in dict.fromkeys(one.part for one in inside):
        own = [one for one in inside if one.part == part]
        same = [one for one in own if one.pid == own[-1].pid]
        found.append(Growth(part, same[0], same[-1]))
    return found


def spread(values: Sequence[float]) -> str:
    """The median and the largest, in seconds."""
    return f"{median(values):.1f}, {max(values):.1f}" if values else "-"


def stamp(moment: float) -> str:
    """For people."""
    return datetime.fromtimestamp(moment).astimezone().isoformat(timespec="seconds")
