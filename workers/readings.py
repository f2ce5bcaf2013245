"""What a worker's device is doing, as its heartbeat tells it: memory and how busy it is.

A process that renders nothing itself, or on the CPU, tells its own resident memory instead.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path
from typing import Any, Final

import structlog

from storage.repository.workers import Reading

STATM: Final = Path("/proc/self/statm")

log = structlog.get_logger()


def read(device: str) -> Reading:
    """The device's memory and load where it is a GPU that is in use already; else the memory of this process."""
    torch: Any = sys.modules.get("torch")  # never imported for this: a remote worker does without
    if torch is not None and device.startswith("cuda") and torch.cuda.is_initialized():
        try:
            free, total = torch.cuda.mem_get_info(device)
        except RuntimeError as error:  # the device is lost: the watchdog sees to that, the heartbeat goes on
            log.warning("device_not_read", device=device, reason=type(error).__name__)
        else:
            return Reading(memory_used=total - free, memory_total=total, utilisation=_utilisation(torch, device))
    return Reading(memory_used=resident())


def unused(device: str) -> int:
    """Bytes of the GPU that torch keeps though nothing lies in them: they count as used, and the next load has them."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not device.startswith("cuda") or not torch.cuda.is_initialized():
        return 0
    return int(torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def _utilisation(torch: Any, device: str) -> float | None:
    """The share of the last moment in which the GPU worked; None: the driver does not tell."""
    try:
        return float(torch.cuda.utilization(device)) / 100
    except Exception:  # noqa: BLE001 - NVML has errors of its own, and may not be installed
        return None


def watts(device: str) -> float | None:
    """The power that the GPU draws now; None: no GPU in use, or the driver does not tell."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not device.startswith("cuda") or not torch.cuda.is_initialized():
        return None
    try:
        return float(torch.cuda.power_draw(device)) / 1000
    except Exception:  # noqa: BLE001 - as above
        return None


def resident() -> int:
    """Bytes of memory that this process holds; on systems without ``/proc`` the most that it ever held."""
    try:
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
