"""Who is compared: how each is installed, started, asked for a picture, killed and ended."""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol
from uuid import UUID

import httpx

from bench.farms import running_farm
from bench.peers.family import family
from fluxfarm.catalog import KLEIN_SMALL
from fluxfarm.client import Client
from fluxfarm.embedded import Valkey, free_port
from fluxfarm.farmfile import RunningFarm

SERVERS: Final = Path(__file__).parent / "servers"
VENVS: Final = Path(".fluxfarm") / "peers"
START: Final = 180.0  #: seconds
LOOK: Final = 0.02  #: seconds between two polls of a job


@dataclass(frozen=True, slots=True)
class Order:
    """One picture: a seed, pixels a side, denoising steps."""

    seed: int
    side: int
    steps: int

    @property
    def fields(self) -> dict[str, int]:
        """By name."""
        return {"seed": self.seed, "side": self.side, "steps": self.steps}


class Contestant(Protocol):
    """What a measurement needs of each."""

    name: str

    def start(self) -> None:
        """Install and start it; ready when it returns."""

    def render(self, order: Order, *, urgent: bool = False) -> bytes:
        """One picture, however long it takes; of another user, who waits for it, if it is ``urgent``."""

    def kill(self) -> None:
        """SIGKILL to what renders, and start it again."""

    def pids(self) -> list[int]:
        """The processes from which all others of it descend."""

    def stop(self) -> None:
        """End it."""


class BareLoop:
    """The pipeline in a loop, one picture after the other."""

    name = "bare loop"

    def start(self) -> None:
        """Load the model into this very process."""
        sys.path.insert(0, str(SERVERS))
        from rendering import Renderer  # type: ignore[import-not-found]  # noqa: PLC0415 - stands alone

        self._renderer = Renderer()

    def render(self, order: Order, *, urgent: bool = False) -> bytes:
        """As the others."""
        assert not urgent
        return base64.b64decode(self._renderer.draw(**order.fields))

    def kill(self) -> None:
        """There is nothing to kill."""

    def pids(self) -> list[int]:
        """This process; it holds the bench as well."""
        return [os.getpid()]

    def stop(self) -> None:
        """Nothing runs."""


@dataclass
class Served:
    """A server of one command that answers a call with a picture."""

    name: str
    packages: tuple[str, ...]
    command: Callable[[str, int], list[str]]
    ready: str
    ask: Callable[[httpx.Client, Order], httpx.Response]
    image: Callable[[Any], str] = lambda told: str(told["image"])
    is_ready: Callable[[httpx.Response], bool] = lambda reply: reply.status_code == 200
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Install, start, wait."""
        self._python = install(self.name, self.packages)
        self._port = free_port()
        self._client = httpx.Client(
            base_url=f"http://127.0.0.1:{self._port}",
            timeout=600,
            trust_env=False,
            limits=httpx.Limits(max_connections=None),
        )
        self._launch()

    def _launch(self) -> None:
        self.process = launch(self._python, self.command(self._python, self._port), self._port, self.environment)
        wait_until(lambda: self.is_ready(self._client.get(self.ready)), self.process)

    def render(self, order: Order, *, urgent: bool = False) -> bytes:
        """One call; a server without a queue says 409, and is asked again."""
        assert urgent in (True, False)  # there is no such thing here
        while (reply := self.ask(self._client, order)).status_code == 409:
            time.sleep(LOOK)
        return base64.b64decode(self.image(reply.raise_for_status().json()))

    def kill(self) -> None:
        """All of it, as it is one server."""
        self.stop(signal.SIGKILL)
        self._launch()

    def pids(self) -> list[int]:
        """The server's."""
        return [] if self.process is None else [self.process.pid]

    def stop(self, order: signal.Signals = signal.SIGTERM) -> None:
        """End its process group."""
        end(self.process, order)


def served() -> list[Contestant]:
    """The servers that are compared."""

    def json(path: str) -> Callable[[httpx.Client, Order], httpx.Response]:
        return lambda client, order: client.post(path, json=order.fields)

    return [
        Served(
            "FastAPI and a lock",
            (),
            lambda python, _port: [python, "plain_app.py"],
            "/healthz",
            lambda client, order: client.post("/render", params=order.fields),
        ),
        Served(
            "LitServe",
            ("litserve==0.2.19",),
            lambda python, _port: [python, "litserve_app.py"],
            "/health",
            json("/predict"),
        ),
        Served(
            "Ray Serve",
            ("ray[serve]==2.60.0",),
            lambda python, _port: [python, "ray_app.py"],
            "/-/healthz",
            json("/"),
        ),
        Served(
            "BentoML",
            ("bentoml==1.4.40",),
            lambda python, port: [
                str(Path(python).with_name("bentoml")),
                "serve",
                "bento_app:Bento",
                "--host=127.0.0.1",
                f"--port={port}",
            ],
            "/readyz",
            json("/render"),
            environment={"BENTOML_DO_NOT_TRACK": "True"},
        ),
        Served(
            "cog",
            ("cog==0.23.1",),
            lambda python, _port: [python, "-m", "cog.server.http", "--host=127.0.0.1"],
            "/health-check",
            lambda client, order: client.post("/predictions", json={"input": order.fields}),
            image=lambda told: str(told["output"]),
            is_ready=lambda reply: bool(reply.json()["status"] == "READY"),
            environment={"COG_PREDICT_TYPE_STUB": "cog_app.py:Predictor"},
        ),
    ]


class PlainCelery:
    """FastAPI, Celery and Redis with their defaults: acknowledged when taken, prefetch 4, results in Redis."""

    name = "FastAPI and Celery"

    def start(self) -> None:
        """Valkey, an API process, a worker with one process."""
        self._folder = tempfile.TemporaryDirectory(prefix="fluxfarm-peers-")
        self._valkey = Valkey(Path(self._folder.name))
        self._valkey.start()
        self._environment = {"BENCH_REDIS": self._valkey.url}
        port = free_port()
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False)
        api = [sys.executable, "-m", "uvicorn", "celery_app:app", f"--port={port}", "--log-level=warning"]
        self._api = launch(sys.executable, api, port, self._environment)
        wait_until(lambda: self._client.get("/healthz").status_code == 200, self._api)
        self._launch()

    def _launch(self) -> None:
        worker = [sys.executable, "-m", "celery", "-A", "celery_app:queue", "worker", "-c1", "-lerror"]
        self._worker = launch(sys.executable, worker, 0, self._environment)

    def render(self, order: Order, *, urgent: bool = False) -> bytes:
        """Post, poll, get."""
        assert urgent in (True, False)  # there is no such thing here
        task = self._client.post("/render", params=order.fields).raise_for_status().json()["id"]
        while True:
            told = self._client.get(f"/render/{task}").raise_for_status().json()
            if told["image"] is not None:
                return base64.b64decode(told["image"])
            if told["state"] == "FAILURE":
                raise RuntimeError("the task failed")
            time.sleep(LOOK)

    def kill(self) -> None:
        """The worker."""
        end(self._worker, signal.SIGKILL)
        self._launch()

    def pids(self) -> list[int]:
        """The API's, the worker's and Valkey's."""
        assert self._valkey.process is not None
        return [self._api.pid, self._worker.pid, self._valkey.process.pid]

    def stop(self) -> None:
        """End the three."""
        end(self._worker)
        end(self._api)
        self._valkey.stop()
        self._folder.cleanup()


@dataclass
class Fluxfarm:
    """The farm as ``fluxfarm up`` starts it: PostgreSQL, Valkey, API, scheduler, worker, Flower."""

    name: str = "Fluxfarm"
    environment: dict[str, str] = field(default_factory=dict)
    uuids: list[UUID] = field(default_factory=list)

    def start(self) -> None:
        """Start it, and make a second tenant."""
        self._stack = ExitStack()
        self._farm: RunningFarm = self._stack.enter_context(running_farm(**self.environment))
        self._client = self._stack.enter_context(Client(self._farm.url, self._farm.api_key))
        key = self._client.create_key("urgent", tenant=self._client.create_tenant("urgent").id)
        self._other = self._stack.enter_context(Client(self._farm.url, key.secret))

    def render(self, order: Order, *, urgent: bool = False) -> bytes:
        """Post, wait, get the picture from its presigned URL."""
        client, lane = (self._other, "interactive") if urgent else (self._client, "bulk")
        record = client.submit(
            "a lighthouse at dusk",
            model=KLEIN_SMALL.slug,
            size=f"{order.side}x{order.side}",
            steps=order.steps,
            guidance=3.0,
            seed=order.seed,
            lane=lane,
        )
        self.uuids.append(record.uuid)
        return client.download(client.wait(record.uuid, check=True))

    def begun_again(self, count: int) -> int:
        """Attempts beyond the first one of the last ``count`` jobs of the first user."""
        return sum(len(self._client.get(uuid).attempts) - 1 for uuid in self.uuids[-count:])

    def kill(self) -> None:
        """The worker; the farm starts it again."""
        os.kill(self._farm.pids["worker"], signal.SIGKILL)

    def pids(self) -> list[int]:
        """All of its parts."""
        return list(self._farm.pids.values())

    def stop(self) -> None:
        """End it."""
        self._stack.close()


def install(name: str, packages: tuple[str, ...]) -> str:
    """The Python of a virtual environment of its own with these packages; torch and diffusers are those of this one."""
    if not packages:
        return sys.executable
    folder = (VENVS / name.replace(" ", "-").lower()).resolve()
    python = folder / "bin" / "python"
    if not (folder / ".ready").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        ours = [path for path in sys.path if path.endswith("site-packages")]
        site = next((folder / "lib").glob("python3*/site-packages"))
        (site / "zz_torch.pth").write_text("\n".join(ours) + "\n", encoding="utf-8")  # after its own packages
        (folder / ".ready").touch()
    return str(python)


def launch(python: str, command: list[str], port: int, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """A process group of its own, in the folder of the servers."""
    path = f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(
        command,
        cwd=SERVERS,
        env={**os.environ, "PATH": path, "PORT": str(port), **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def wait_until(is_ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Until a server answers.

    Raises:
        RuntimeError: it ended, or did not answer in time.
    """
    deadline = time.monotonic() + START
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if is_ready():
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} did not become ready")


def end(process: subprocess.Popen[bytes] | None, order: signal.Signals = signal.SIGTERM) -> None:
    """End a process with its group; a SIGKILL is for all its descendants, as some servers render in other groups."""
    if process is None or process.poll() is not None:
        return
    if order == signal.SIGKILL:
        for pid in family([process.pid]) - {process.pid}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, order)
    os.killpg(process.pid, order)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
