"""Numbers, times and names as people read them; the filters of the templates."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

NOTHING: Final = "\u2013"  #: an en dash, where there is no value
UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"))


def seconds(value: float | None) -> str:
    """A span: ``0.42 s``, ``12 s``, ``3 min 5 s``, ``2 h 4 min``."""
    if value is None:
        return NOTHING
    if value < 10:  # noqa: PLR2004
        return f"{value:.2f} s" if value < 1 else f"{value:.1f} s"
    whole = round(value)
    if whole < 60:  # noqa: PLR2004
        return f"{whole} s"
    if whole < 3_600:  # noqa: PLR2004
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    if whole < 86_400:  # noqa: PLR2004
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def ago(moment: datetime | None) -> str:
    """How long ago: ``just now``, ``3 min ago``."""
    if moment is None:
        return "never"
    passed = (datetime.now(UTC) - moment).total_seconds()
    if passed < 0:
        return f"in {rough(-passed)}"
    return "just now" if passed < 5 else f"{rough(passed)} ago"  # noqa: PLR2004


def rough(value: float) -> str:
    """A span in its largest unit."""
    for size, name in UNITS:
        if value >= size:
            return f"{value / size:.0f} {name}"
    return f"{value:.0f} s"


def usd(value: Decimal | float | None) -> str:
    """Dollars, with as many places as it takes to see something."""
    if value is None:
        return NOTHING
    amount = Decimal(value)
    return f"${amount:,.2f}" if not amount or abs(amount) >= Decimal("0.1") else f"${amount:.4f}"


def moment(value: datetime | None) -> str:
    """To the second, in UTC."""
    return NOTHING if value is None else f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def machine(value: datetime | None) -> str:
    """For the ``datetime`` of a ``<time>``."""
    return "" if value is None else value.astimezone(UTC).isoformat(timespec="seconds")


def count(value: float | None) -> str:
    """With thousands apart."""
    return NOTHING if value is None else f"{value:,.0f}"


def memory(value: float | None) -> str:
    """Bytes: ``512 MB``, ``61.2 GB``; powers of 1024, as drivers count."""
    if value is None:
        return NOTHING
    return f"{value / 2**30:.1f} GB" if value >= 2**30 else f"{value / 2**20:.0f} MB"


def percent(value: float | None) -> str:
    """A share."""
    return NOTHING if value is None else f"{100 * value:.3g} %"


def short(model: str) -> str:
    """A model's slug without its owner."""
    return model.rpartition("/")[2]


FILTERS: Final = {
    "seconds": seconds,
    "ago": ago,
    "usd": usd,
    "moment": moment,
    "machine": machine,
    "count": count,
    "memory": memory,
    "percent": percent,
    "short": short,
}
