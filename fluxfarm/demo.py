"""``make demo``: a whole farm for one job, from POST to presigned URLs, by the calls that any HTTP client makes."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

import httpx
from PIL import Image
from PIL.ImageFile import ImageFile
from pydantic import SecretStr

from fluxfarm import farmfile, parts, processes
from fluxfarm.catalog import KLEIN_SMALL
from fluxfarm.errors import FluxfarmError, RenderFailed, Unavailable
from fluxfarm.farmfile import RunningFarm
from fluxfarm.processes import Steps
from fluxfarm.settings import Settings
from fluxfarm.sources import ModelSource

PROMPT: Final = "a large heart in the centre"  #: leaves the colours to the seeds
SIZE: Final = (124, 128)  #: not a multiple of 16 in width: the farm draws 128x128 and crops
COUNT: Final = 8  #: pictures of the job
IN_A_ROW: Final = 4  #: pictures of the contact sheet
GAP: Final = 4  #: pixels between two of them
SEED: Final = 2026
FOLDER: Final = Path("demo")
START_TIMEOUT: Final = 200.0  #: seconds
RENDER_TIMEOUT: Final = 120.0  #: seconds
TICK: Final = 0.1  #: seconds between two looks for the farm
STOP: Final[Steps] = ((signal.SIGTERM, 40.0), (signal.SIGKILL, 5.0))
FORBIDDEN: Final = 403
LINK_TTL: Final = 3  #: seconds; short, so that the demo can show a link expire


def run(settings: Settings) -> int:
    """Show the farm; the aiRecord goes to standard output, everything else to standard error.

    Returns:
        0 when the pictures are there and right, else 1.
    """
    own = own_settings(settings)
    try:
        with _stoppable(), _farm(own) as farm:
            _say(f"The farm runs at {farm.url}.")
            record = _render(farm)
            path = _check(record)
    except FluxfarmError as error:
        _say(error.message)
        return 1
    except httpx.HTTPError as error:
        _say(f"The farm did not answer: {error}")
        return 1
    except KeyboardInterrupt:
        _say("Stopped.")
        return 130
    print(json.dumps({"aiRecord": record}, indent=2, ensure_ascii=False))  # noqa: T201 (the result of this command)
    _say(f"The contact sheet is {path}; the farm is stopped. Run make up for one that stays.")
    return 0


def own_settings(settings: Settings) -> Settings:
    """A farm of its own beside any other: own data, free ports, embedded servers, the small model, local objects."""
    return settings.model_copy(
        update={
            "data_dir": settings.data_dir.expanduser().absolute() / "demo",
            "host": parts.LOOPBACK,
            "port": 0,
            "flower_port": 0,
            "public_url": "",
            "database_url": SecretStr(""),
            "redis_url": SecretStr(""),
            "s3_bucket": "",
            "models": (ModelSource(KLEIN_SMALL.slug),),
            "link_ttl": LINK_TTL,
        }
    )


@contextmanager
def _farm(settings: Settings) -> Iterator[RunningFarm]:
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    log = settings.data_dir / "demo.log"
    processes.rotate(log)
    _say("Starting PostgreSQL, Valkey, API, worker, scheduler and Flower …")
    supervisor = processes.spawn(
        parts.python("fluxfarm.farm"),
        log=log,
        cwd=parts.ROOT,
        env=parts.environment(settings),
        death_signal=signal.SIGTERM,
    )
    try:
        yield _await_farm(settings.data_dir, supervisor, log)
    finally:
        processes.end(supervisor, STOP)


def _await_farm(data_dir: Path, supervisor: subprocess.Popen[bytes], log: Path) -> RunningFarm:
    until = time.monotonic() + START_TIMEOUT
    while time.monotonic() < until:
        if supervisor.poll() is not None:
            raise Unavailable(f"The farm did not start:\n{processes.last_lines(log)}")
        farm = farmfile.find(data_dir)
        if farm is not None and farm.pids[farmfile.SUPERVISOR] == supervisor.pid:
            return farm
        time.sleep(TICK)
    raise Unavailable(f"The farm was not ready after {START_TIMEOUT:g} s; its logs are in {data_dir / 'logs'}.")


def _render(farm: RunningFarm) -> dict[str, Any]:
    """POST a job and poll it to its end."""
    width, height = SIZE
    job = {
        "type": "IMAGE_GENERATOR",
        "model": KLEIN_SMALL.slug,
        "promptObject": {
            "prompt": PROMPT,
            "size": f"{width}x{height}",
            "n": COUNT,
            "seed": SEED,
            "output_format": "webp",
        },
    }
    headers = {"Authorization": f"Bearer {farm.api_key}"}
    with httpx.Client(base_url=farm.url, headers=headers, timeout=60.0, trust_env=False) as client:
        reply = client.post("/v1/jobs", json=job)
        if reply.is_error:
            raise RenderFailed(f"POST /v1/jobs answered {reply.status_code}: {reply.text}")
        where = reply.headers["Location"]
        _say(f"POST /v1/jobs → {reply.status_code}, {where}")
        until = time.monotonic() + RENDER_TIMEOUT
        while time.monotonic() < until:
            record: dict[str, Any] = client.get(where, params={"wait": 20}).raise_for_status().json()["aiRecord"]
            if record["status"] == "SUCCESS":
                return record
            if record["status"] in {"FAILED", "CANCELED"}:
                raise RenderFailed(f"The job is {record['status']}: {json.dumps(record['error'])}")
            time.sleep(TICK)
    raise RenderFailed(f"The job was not done after {RENDER_TIMEOUT:g} s.")


def _check(record: dict[str, Any]) -> Path:
    """Fetch the pictures by their links alone, look at them, keep a sheet of all, see that other links open nothing."""
    link: str = record["temporaryUrl"]
    with httpx.Client(timeout=60.0, trust_env=False) as anybody:
        replies = [anybody.get(one).raise_for_status() for one in record["temporaryUrls"]]
        altered = anybody.get(link[:-1] + ("0" if link[-1] != "0" else "1"))
        until = time.monotonic() + LINK_TTL + 1
        while not (expired := anybody.get(link)).is_error and time.monotonic() < until:
            time.sleep(TICK)
    pictures = [Image.open(io.BytesIO(reply.content)) for reply in replies]
    found = [(picture.format, *picture.size) for picture in pictures]
    if found != [("WEBP", *SIZE)] * COUNT:
        raise RenderFailed(f"The pictures are {found}, not {COUNT} WebP of {SIZE[0]}x{SIZE[1]}.")
    for what, refused in (("altered", altered), ("expired", expired)):
        if refused.status_code != FORBIDDEN:
            raise RenderFailed(f"An {what} link answered {refused.status_code}, not {FORBIDDEN}.")
    size = sum(len(reply.content) for reply in replies)
    kind = replies[0].headers["Content-Type"]
    _say(f"GET temporaryUrls → {COUNT} x 200, {size} bytes of {kind}; altered → 403; expired → 403")
    FOLDER.mkdir(exist_ok=True)
    for number, reply in enumerate(replies):
        (FOLDER / f"picture-{number}.webp").write_bytes(reply.content)
    path = FOLDER / "sheet.webp"
    _sheet(pictures).save(path, quality=90)
    return path


def _sheet(pictures: list[ImageFile]) -> Image.Image:
    """All pictures beside each other."""
    width, height = SIZE[0] + GAP, SIZE[1] + GAP
    sheet = Image.new("RGB", (IN_A_ROW * width + GAP, -(-len(pictures) // IN_A_ROW) * height + GAP), "white")
    for number, picture in enumerate(pictures):
        row, column = divmod(number, IN_A_ROW)
        sheet.paste(picture, (GAP + column * width, GAP + row * height))
    return sheet


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does, so that its farm is stopped."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(run(Settings()))
