"""What an API key may do. Each call needs exactly one of these; none includes another."""

from __future__ import annotations

from enum import StrEnum


class Scope(StrEnum):
    """A permission of a key."""

    RENDER = "render"  #: make, stop and erase jobs, upload references, say where their ends are told
    READ = "read"  #: look at jobs, pictures, models, workers and spend
    CAMPAIGNS = "campaigns"  #: make and steer campaigns
    ADMIN = "admin"  #: make, rotate and revoke the keys of the own tenant
    OPERATOR = "operator"  #: run the farm: tenants, their limits and their first keys; given by an operator only
