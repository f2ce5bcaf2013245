"""The processes of a farm as data: what each is called, how it starts, what it sees, how one knows that it is ready."""

from __future__ import annotations

import errno
import os
import secrets
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import httpx
from pydantic import SecretStr

from fluxfarm.errors import Conflict, InvalidField
from fluxfarm.remotes import Remotes
from fluxfarm.settings import Settings
from fluxfarm.sources import ModelSource

ROOT: Final = Path(__file__).resolve().parent.parent  #: the checkout: api, storage and workers stand beside fluxfarm
LOOPBACK: Final = "127.0.0.1"
FLOWER_USER: Final = "fluxfarm"
CLIENT_FIELDS: Final = {"url", "api_key"}  #: for the client's side; no process of the farm reads them
DRAIN: Final = 5  #: seconds that the API gives open connections when it stops
OK: Final = 200

Ready = Callable[[httpx.Client, int], bool]


@dataclass(frozen=True, slots=True)
class Access:
    """The keys of this run of the farm."""

    api_key: str = field(repr=False)
    flower_password: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One process; ``ready`` is asked with its pid until it says yes, and must not raise anything but httpx errors."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    ready: Ready = lambda _client, _pid: True


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The commands of a farm: two that end, in this order, then the parts that stay.

    ``durable=False`` lets the embedded servers lose data in a power cut, for tests.
    """

    migrate: tuple[str, ...]
    bootstrap: tuple[str, ...]
    parts: Callable[[Settings, Access], tuple[Part, ...]]
    durable: bool = True


def python(*arguments: str) -> tuple[str, ...]:
    """A command of this very interpreter, so that nothing depends on PATH."""
    return (sys.executable, "-m", *arguments)


def farm_parts(settings: Settings, access: Access) -> tuple[Part, ...]:
    """API, workers, webhooks, scheduler and Flower; ``settings`` is complete (see ``complete``)."""
    return (
        Part(
            name="api",
            argv=python(
                "uvicorn",
                "api.main:create_app",
                "--factory",
                f"--host={settings.host}",
                f"--port={settings.port}",
                f"--timeout-graceful-shutdown={DRAIN}",
                "--no-access-log",  # it would hold the signatures of links
                "--no-server-header",
            ),
            ready=lambda client, _: client.get(f"{local_url(settings)}/readyz").status_code == OK,
        ),
        Part(
            name="worker",
            argv=python("workers", "local"),
            ready=partial(_worker_is_ready, settings, access),
        ),
        *(
            (Part(name="remote", argv=python("workers", "remote"), ready=partial(_worker_is_ready, settings, access)),)
            if Remotes.from_settings(settings).enabled
            else ()
        ),
        Part(name="webhooks", argv=python("workers", "webhooks")),
        Part(name="scheduler", argv=python("workers", "scheduler")),
        Part(
            name="flower",
            argv=python(
                *("celery", "-A", "workers", "flower"),
                f"--address={LOOPBACK}",
                f"--port={settings.flower_port}",
                "--read-only",
                "--max-tasks=10000",
            ),
            # On the command line every user of the machine could read the password.
            env={"FLOWER_BASIC_AUTH": f"{FLOWER_USER}:{access.flower_password}"},
            ready=lambda client, _: client.get(f"{flower_url(settings)}/healthcheck").status_code == OK,
        ),
    )


FARM: Final = Plan(
    migrate=python("alembic", "upgrade", "head"), bootstrap=python("storage.bootstrap"), parts=farm_parts
)


def _worker_is_ready(settings: Settings, access: Access, client: httpx.Client, pid: int) -> bool:
    """Whether the worker of this run is; that of a killed run may still be listed for a while."""
    reply = client.get(f"{local_url(settings)}/v1/workers", headers={"Authorization": f"Bearer {access.api_key}"})
    if reply.status_code != OK:
        return False
    name = f"{socket.gethostname()}:{pid}"
    return any(one["name"] == name and one["state"] == "ready" for one in reply.json()["data"])


def new_flower_password() -> str:
    """Random; its alphabet has neither comma nor colon, which Flower would split at."""
    return secrets.token_urlsafe(24)


def local_url(settings: Settings) -> str:
    """Where the API answers on this machine."""
    host = LOOPBACK if settings.host in {"0.0.0.0", "::", ""} else settings.host  # noqa: S104 (compared, not bound)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def flower_url(settings: Settings) -> str:
    """Where Flower answers; on this machine only."""
    return f"http://{LOOPBACK}:{settings.flower_port}"


def complete(settings: Settings) -> Settings:
    """The settings with real ports and absolute paths, as the parts run in another folder than the caller.

    Raises:
        Conflict: a port is taken.
        InvalidField: a port or the host cannot be used here.
    """
    port = claim_port(settings.host, settings.port, "FLUXFARM_PORT")
    flower_port = claim_port(LOOPBACK, settings.flower_port, "FLUXFARM_FLOWER_PORT", besides=port)
    models = tuple(
        ModelSource(one.slug, folder=one.folder.absolute()) if one.folder else one for one in settings.models
    )
    return settings.model_copy(
        update={
            "data_dir": settings.data_dir.expanduser().absolute(),
            "port": port,
            "flower_port": flower_port,
            "models": models,
        }
    )


def claim_port(host: str, port: int, setting: str, *, besides: int = 0) -> int:
    """The port if it can be had, or a free one for 0.

    Raises:
        Conflict: another program listens there.
        InvalidField: this user may not use it, or the host is not an address of this machine.
    """
    if port and port == besides:
        raise Conflict(f"Port {port} is asked for twice: set {setting} to another one.", param=setting)
    try:
        family, _, _, _, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            found: int = probe.getsockname()[1]
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            message = (
                f"Port {port} is taken: stop what listens there, or set {setting} to another port (0: a free one)."
            )
            raise Conflict(message, param=setting) from error
        if error.errno == errno.EACCES:
            raise InvalidField(f"Port {port} is not for this user: set {setting} above 1023.", param=setting) from error
        raise InvalidField(f"FLUXFARM_HOST: cannot listen on {host!r}: {error}.", param="FLUXFARM_HOST") from error
    return found


def environment(settings: Settings) -> dict[str, str]:
    """What makes a child's ``Settings()`` equal to these; everything else it inherits."""
    told = {name for name in settings.model_fields_set if name not in CLIENT_FIELDS}
    fields = type(settings).model_fields
    own = {str(fields[name].alias): _as_text(getattr(settings, name)) for name in told}
    return {**os.environ, "PYTHONUNBUFFERED": "1", **own}


def _as_text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, tuple):
        return ",".join(_as_text(one) for one in value)
    if isinstance(value, ModelSource):
        place = value.folder or (f"{value.hub_id}@{value.revision}" if value.hub_id else "")
        return f"{value.slug}={place}" if place else value.slug
    return str(value)
