"""``fluxfarm doctor``: what this machine lacks for a farm, as data, each finding with what to do about it."""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from fluxfarm import farmfile, parts
from fluxfarm.catalog import find_model
from fluxfarm.denials import DenyList
from fluxfarm.embedded import blocked_folders, find_postgres, find_valkey
from fluxfarm.errors import FluxfarmError
from fluxfarm.settings import Settings
from fluxfarm.sources import ModelSource

Status = Literal["ok", "warn", "fail"]

OLDEST_PYTHON: Final = (3, 11)
RENDERING: Final = ("torch", "diffusers", "transformers", "accelerate", "safetensors")
GIB: Final = 2**30
LEAST_DISK: Final = 1 * GIB  #: below, the farm cannot start
ENOUGH_DISK: Final = 20 * GIB  #: below, the weights of a real model do not fit
ENOUGH_FILES: Final = 1024  #: open files of one process; an event stream holds one for each listener
CONNECT_TIMEOUT: Final = 2.0  #: seconds
TORCH_TIMEOUT: Final = 120.0  #: seconds; a cold import from a slow disk takes long
PORTS: Final = {
    "http": 80,
    "https": 443,
    "redis": 6379,
    "rediss": 6379,
    "postgresql": 5432,
    "postgres": 5432,
    "amqp": 5672,
    "amqps": 5671,
}

#: Runs in a child: this package must never import torch.
ASK_TORCH: Final = """
import json, torch
cuda = torch.cuda.is_available()
gpus = range(torch.cuda.device_count() if cuda else 0)
gpus = [(torch.cuda.get_device_name(i), *torch.cuda.mem_get_info(i)) for i in gpus]
print(json.dumps({"version": torch.__version__, "gpus": gpus, "mps": torch.backends.mps.is_available()}))
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: ``what`` was found, and ``advice`` when that is not good; neither ever holds a secret."""

    name: str
    status: Status
    what: str
    advice: str = ""


def check(settings: Settings) -> list[Finding]:
    """Every check, in the order of a set-up; changes nothing and takes a few seconds, most of them for torch."""
    return [
        _python(),
        _rendering(),
        _gpu(settings),
        *(_weights(settings, source) for source in settings.models),
        *_safety(settings),
        _disk(settings),
        *_services(settings),
        *_ports(settings),
        _user(settings),
        _open_files(),
        _farm(settings),
    ]


def _python() -> Finding:
    found = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info[:2] < OLDEST_PYTHON:
        return Finding("python", "fail", f"Python {found}", "Install Python 3.11 or newer.")
    return Finding("python", "ok", f"Python {found}")


def _rendering() -> Finding:
    missing = [name for name in RENDERING if importlib.util.find_spec(name) is None]
    if missing:
        what = f"{', '.join(missing)} not installed"
        return Finding("rendering", "fail", what, "Run pip install 'fluxfarm[local]' where the workers run.")
    return Finding("rendering", "ok", "torch, diffusers and transformers are installed")


def _gpu(settings: Settings) -> Finding:
    if importlib.util.find_spec("torch") is None:
        return Finding("gpu", "warn", "unknown without torch", "Run pip install 'fluxfarm[local]' first.")
    try:
        child = subprocess.run(  # noqa: S603
            [sys.executable, "-c", ASK_TORCH], capture_output=True, text=True, timeout=TORCH_TIMEOUT, check=True
        )
        found = json.loads(child.stdout)
    except subprocess.CalledProcessError as error:
        why = (error.stderr.strip().splitlines() or ["no message"])[-1]
        return Finding("gpu", "fail", f"torch does not load: {why}", "Install torch again for this machine's driver.")
    except (subprocess.TimeoutExpired, ValueError):
        return Finding("gpu", "fail", "torch did not answer", "Look at the GPU driver (nvidia-smi).")
    return _device(settings, found["version"], found["gpus"], mps=found["mps"])


def _device(settings: Settings, version: str, gpus: list[tuple[str, int, int]], *, mps: bool) -> Finding:
    if gpus:
        shown = ", ".join(f"{name} ({free / GIB:.0f} of {total / GIB:.0f} GiB free)" for name, free, total in gpus)
        if settings.device == "cpu":
            return Finding("gpu", "warn", f"{shown}, not used", "Unset FLUXFARM_DEVICE to render on it.")
        return Finding("gpu", "ok", f"{shown}, torch {version}")
    if settings.device.startswith("cuda"):
        advice = "Install the driver and a CUDA build of torch, or set FLUXFARM_DEVICE=auto."
        return Finding("gpu", "fail", f"FLUXFARM_DEVICE={settings.device}, but torch {version} sees no GPU", advice)
    if mps:
        return Finding("gpu", "ok", f"Apple GPU, torch {version}")
    advice = "Fine for the small models; FLUX.2 itself takes minutes a picture on a CPU."
    return Finding("gpu", "warn", f"no GPU, renders run on the CPU (torch {version})", advice)


def _weights(settings: Settings, source: ModelSource) -> Finding:
    name = f"model {source.slug}"
    try:
        find_model(source.slug)
    except FluxfarmError as error:
        return Finding(name, "fail", error.message, "Correct FLUXFARM_MODELS.")
    if source.is_built_here:
        return _built_here(name, source)
    if source.folder is not None:
        if (source.folder / "model_index.json").is_file():
            return Finding(name, "ok", f"weights in {source.folder}")
        lack = "has no model_index.json" if source.folder.is_dir() else "does not exist"
        return Finding(name, "fail", f"{source.folder} {lack}", "Name the folder of a diffusers pipeline.")
    return _from_the_hub(settings, name, source)


def _from_the_hub(settings: Settings, name: str, source: ModelSource) -> Finding:
    snapshot = hub_cache() / f"models--{source.hub_id}".replace("/", "--") / "snapshots" / str(source.revision)
    if (snapshot / "model_index.json").is_file():
        return Finding(name, "ok", f"{source.hub_id} is in the local cache")
    if settings.allow_downloads:
        return Finding(name, "warn", f"{source.hub_id} is not on this disk", "The first worker will download it.")
    advice = f"Run hf download {source.hub_id} --revision {source.revision}, or set FLUXFARM_ALLOW_DOWNLOADS=true."
    return Finding(name, "fail", f"{source.hub_id} is not on this disk", advice)


def _built_here(name: str, source: ModelSource) -> Finding:
    if source.slug.startswith("fluxfarm/"):
        return Finding(name, "ok", "a small model; the farm builds it on first use")
    advice = f"Write {source.slug}=/folder or {source.slug}=owner/name@commit in FLUXFARM_MODELS."
    return Finding(name, "fail", "no place of its weights is named", advice)


def hub_cache() -> Path:
    """Where huggingface_hub keeps what it fetched, by its own rules."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()


def _safety(settings: Settings) -> Iterator[Finding]:
    if settings.deny_file is not None:
        try:
            DenyList.of_file(settings.deny_file, "FLUXFARM_DENY_FILE")
        except FluxfarmError as error:
            yield Finding("deny list", "fail", error.message, f"Correct {error.param}; no worker starts with it.")
    if settings.classifier is not None and not (settings.classifier / "config.json").is_file():
        what = f"{settings.classifier} has no config.json"
        yield Finding(
            "classifier", "fail", what, "Name the folder of a classifier; without it no picture is given out."
        )
    yield _looks(settings)


def _looks(settings: Settings) -> Finding:
    looks = {"a deny list": settings.deny_file, "a classifier": settings.classifier}
    named = " and ".join(name for name, path in looks.items() if path is not None)
    if settings.safety == "off" and named:
        advice = "Set FLUXFARM_SAFETY=log or block, unless only tenants with a mode of their own should be looked at."
        return Finding("safety", "warn", f"FLUXFARM_SAFETY=off, but {named}", advice)
    if settings.safety != "off" and not named:
        advice = "Name FLUXFARM_DENY_FILE or FLUXFARM_CLASSIFIER; without them only tenants' own words are looked for."
        return Finding("safety", "warn", f"FLUXFARM_SAFETY={settings.safety}, but nothing to look with", advice)
    return Finding("safety", "ok", f"{settings.safety}, with {named}" if named else "off")


def _disk(settings: Settings) -> Finding:
    folder = _nearest(settings.data_dir.expanduser().absolute())
    free = shutil.disk_usage(folder).free
    what = f"{free / GIB:.1f} GiB free at {folder}"
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return Finding(
            "disk", "fail", f"{folder} is no folder that can be written", "Set FLUXFARM_DATA_DIR to a folder of yours."
        )
    if free < LEAST_DISK:
        return Finding("disk", "fail", what, "Free some space, or set FLUXFARM_DATA_DIR to another disk.")
    if free < ENOUGH_DISK:
        return Finding("disk", "warn", what, "Enough for the small models; results and real weights need more.")
    return Finding("disk", "ok", what)


def _nearest(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _services(settings: Settings) -> Iterator[Finding]:
    urls = (("database", "DATABASE_URL", settings.database_url), ("broker", "REDIS_URL", settings.redis_url))
    for name, setting, secret in urls:
        url = secret.get_secret_value()
        yield _reachable(name, setting, url) if url else _embedded(name)
    more = (
        ("tickets", "FLUXFARM_BROKER_URL", settings.broker_url),
        ("replica", "FLUXFARM_REPLICA_URL", settings.replica_url),
    )
    for name, setting, secret in more:
        if url := secret.get_secret_value():
            yield _reachable(name, setting, url)
    if settings.s3_bucket and settings.s3_endpoint_url:
        yield _reachable("objects", "S3_ENDPOINT_URL", settings.s3_endpoint_url)
    else:
        yield Finding(
            "objects", "ok", f"S3, bucket {settings.s3_bucket}" if settings.s3_bucket else "on the local disk"
        )


def _embedded(name: str) -> Finding:
    try:
        program = find_postgres() / "postgres" if name == "database" else find_valkey()
    except FluxfarmError as error:
        what, _, advice = error.message.partition(": ")
        return Finding(name, "fail", what, advice[:1].upper() + advice[1:])
    return Finding(name, "ok", f"{program.name}, started by fluxfarm up")


def _reachable(name: str, setting: str, url: str) -> Finding:
    """Whether somebody listens there; only host and port are shown, as the rest of the URL may be secret."""
    try:
        parsed = urlsplit(url)
        host = unquote(parse_qs(parsed.query).get("host", [""])[0]) or parsed.hostname or parts.LOOPBACK
        port = parsed.port or PORTS.get(parsed.scheme.partition("+")[0], 0)
        where = host if host.startswith("/") else f"{host}:{port}"
    except ValueError:
        return Finding(name, "fail", f"{setting} is not a URL", f"Correct {setting}.")
    try:
        if host.startswith("/"):
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(CONNECT_TIMEOUT)
                probe.connect(f"{host}/.s.PGSQL.{parsed.port or PORTS['postgresql']}")
        else:
            socket.create_connection((host, port), timeout=CONNECT_TIMEOUT).close()
    except OSError as error:
        why = error.strerror or str(error)
        return Finding(name, "fail", f"{where} does not answer: {why}", f"Start it, or correct {setting}.")
    return Finding(name, "ok", f"{where} answers")


def _ports(settings: Settings) -> Iterator[Finding]:
    running = farmfile.find(settings.data_dir) is not None
    for name, host, port, setting in (
        ("port", settings.host, settings.port, "FLUXFARM_PORT"),
        ("flower port", parts.LOOPBACK, settings.flower_port, "FLUXFARM_FLOWER_PORT"),
    ):
        if running:
            yield Finding(name, "ok", f"{port}, used by the farm that runs here")
            continue
        try:
            parts.claim_port(host, port, setting)
        except FluxfarmError as error:
            what, _, advice = error.message.partition(": ")
            yield Finding(name, "fail", what, advice[:1].upper() + advice[1:])
        else:
            yield Finding(name, "ok", f"{port} is free" if port else "a free one will be taken")


def _user(settings: Settings) -> Finding:
    if os.geteuid() != 0:
        return Finding("user", "ok", "an ordinary user")
    if settings.database_url.get_secret_value():
        return Finding("user", "ok", "root")
    closed = blocked_folders(settings.data_dir.expanduser().absolute() / "postgres")
    if not closed:
        return Finding("user", "ok", "root; PostgreSQL will run as its own user")
    what = f"root, and PostgreSQL's own user cannot pass {', '.join(str(folder) for folder in closed)}"
    advice = "fluxfarm up will let others pass through (chmod o+x); set FLUXFARM_DATA_DIR elsewhere if you mind."
    return Finding("user", "warn", what, advice)


def _open_files() -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < ENOUGH_FILES:
        return Finding(
            "open files", "warn", f"at most {soft} for a process", f"Run ulimit -n {ENOUGH_FILES * 4} first."
        )
    return Finding("open files", "ok", "enough" if soft == resource.RLIM_INFINITY else f"{soft} for a process")


def _farm(settings: Settings) -> Finding:
    running = farmfile.find(settings.data_dir)
    if running is None:
        return Finding("farm", "ok", f"none runs on {settings.data_dir}", "Start one with fluxfarm up.")
    return Finding("farm", "ok", f"runs at {running.url} (pid {running.pids.get(farmfile.SUPERVISOR)})")
