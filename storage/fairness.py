"""Whose job is next: lanes first, then tenants by weight in GPU-seconds, then the campaigns of one tenant alike.

Each tenant has a virtual time: the GPU-seconds that it was given, divided by its weight. The backlogged tenant whose
time is lowest is next. A clock that follows the lowest time among the backlogged keeps an idle tenant from saving up
credit, and lets a new one start level with the others (start-time fair queueing, Goyal, Vin and Cheng 1996, with the
clock of Linux's CFS). No SQL here; ``storage/repository/fair.py`` reads and writes the times.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from uuid import UUID


@dataclass(slots=True)
class Campaign:
    """What a tenant's campaign was given; ``name`` is empty for jobs outside campaigns."""

    name: str
    time: float = 0.0


@dataclass(slots=True)
class Tenant:
    """What a tenant was given on one queue, in seconds by weight, and the clock of its campaigns."""

    id: UUID
    weight: float = 1.0
    time: float = 0.0
    campaign_clock: float = 0.0
    room: float = inf  #: jobs that may start beside those that run
    ticket_room: float = inf  #: jobs that may get a ticket beside those that run or have one


@dataclass(frozen=True, slots=True)
class Flow:
    """Jobs that stand in one line: by priority, then age."""

    lane: int
    tenant: Tenant
    campaign: Campaign


def choose(flows: Iterable[Flow], clock: float) -> Flow | None:
    """The flow whose first job is next; None: nothing waits. Ties go to the smaller id, so that all choose alike."""
    waiting = list(flows)
    if not waiting:
        return None
    lane = min(flow.lane for flow in waiting)
    urgent = [flow for flow in waiting if flow.lane == lane]
    tenant = min((flow.tenant for flow in urgent), key=lambda one: (max(clock, one.time), one.id))
    own = [flow for flow in urgent if flow.tenant.id == tenant.id]
    return min(own, key=lambda flow: (max(tenant.campaign_clock, flow.campaign.time), flow.campaign.name))


def advance(flows: Iterable[Flow], clock: float) -> float:
    """The clock before a choice: the lowest time of those who wait, and never back."""
    return max(clock, min((max(clock, flow.tenant.time) for flow in flows), default=clock))


def charge(flow: Flow, flows: Iterable[Flow], clock: float, seconds: float) -> None:
    """Give ``seconds`` of GPU to the flow's tenant and campaign."""
    tenant, campaign = flow.tenant, flow.campaign
    tenant.time = max(clock, tenant.time) + seconds / tenant.weight
    times = [max(tenant.campaign_clock, one.campaign.time) for one in flows if one.tenant.id == tenant.id]
    tenant.campaign_clock = max(tenant.campaign_clock, min(times, default=tenant.campaign_clock))
    campaign.time = max(tenant.campaign_clock, campaign.time) + seconds
