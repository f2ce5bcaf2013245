"""The callers of a soak: a steady mixture of all that callers do, each call repeated until it is answered."""

from __future__ import annotations

import asyncio
import io
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from PIL import Image

from fluxfarm.catalog import DEV, KLEIN_SMALL
from fluxfarm.farmfile import RunningFarm

CLIENTS: Final = 60  #: calls that wait for their answers at once; then callers hold back
TIMEOUT: Final = 15.0  #: seconds that a client waits for an answer
PAUSE: Final = 0.5  #: seconds before a call is repeated
PATIENCE: Final = 240.0  #: seconds after which a call that is not answered is a finding
CAMPAIGN_ROWS: Final = 8
FULL: Final = 250  #: open jobs at which callers hold back


@dataclass
class Journal:
    """What the callers were told; ``keys`` are Idempotency-Keys."""

    accepted: dict[str, str] = field(default_factory=dict)  #: key: uuid of the job
    doubled: list[str] = field(default_factory=list)  #: keys that two answers gave different jobs
    images: dict[str, int] = field(default_factory=dict)  #: uuid: how many pictures were asked for
    hooked: set[str] = field(default_factory=set)  #: jobs whose end is told to the receiver
    remote: set[str] = field(default_factory=set)
    canceled: dict[str, bool] = field(default_factory=dict)  #: uuid: whether the farm said that it stopped it
    campaigns: dict[str, int] = field(default_factory=dict)  #: name: its jobs
    answers: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)  #: answers that nobody expects
    unanswered: list[str] = field(default_factory=list)  #: calls that were given up
    slowest: float = 0.0  #: seconds of the slowest call that got any answer
    open_jobs: int = 0  #: as the watcher last saw it

    @property
    def acknowledged(self) -> int:
        """Jobs that somebody was promised."""
        return len(self.accepted) + sum(self.campaigns.values())


class Callers:
    """Clients that share one rate; ``dice`` decides what comes next."""

    def __init__(self, farm: RunningFarm, key: str, webhook: str, journal: Journal, seed: int) -> None:
        """``key`` is an API key that outlives the farm's runs, ``webhook`` the URL of the receiver's endpoint."""
        self._journal, self._webhook, self._seed = journal, webhook, seed
        self._dice = random.Random(seed)
        self._count = 0
        self._http = httpx.AsyncClient(
            base_url=farm.url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=TIMEOUT,
            trust_env=False,
            limits=httpx.Limits(max_connections=CLIENTS),
        )
        self._acts: list[tuple[Callable[[], Coroutine[None, None, None]], int]] = [
            (self._plain, 60),
            (self._stopped, 12),
            (self._edit, 12),
            (self._campaign, 2),
            (self._remote, 8),
            (self._look, 6),
        ]

    async def call(self, enough: asyncio.Event, rate: float) -> None:
        """Act ``rate`` times a second until it is enough, and let what was begun end."""
        acts, weights = zip(*self._acts, strict=True)
        begun: set[asyncio.Task[None]] = set()
        while not enough.is_set():
            await asyncio.sleep(self._dice.expovariate(rate))
            if len(begun) < CLIENTS and self._journal.open_jobs <= FULL:
                (act,) = self._dice.choices(acts, weights)
                task = asyncio.create_task(act())
                begun.add(task)
                task.add_done_callback(begun.discard)
        await asyncio.gather(*begun)

    async def close(self) -> None:
        """Give the connections back."""
        await self._http.aclose()

    # --- what callers do -----------------------------------------------------------------------------------------

    async def _plain(self) -> None:
        await self._job(n=self._dice.choice((1, 1, 1, 2, 3)))

    async def _stopped(self) -> None:
        uuid = await self._job(num_inference_steps=40)
        if uuid is None:
            return
        await asyncio.sleep(self._dice.uniform(0, 1.5))
        reply = await self._insist("POST", f"/v1/jobs/{uuid}/cancel")
        if reply is not None and reply.status_code in {200, 409}:
            # a repeat whose first call was carried out, but not answered, hears of the state that it made
            self._journal.canceled[uuid] = reply.status_code == 200 or "already CANCELED" in reply.text
        elif reply is not None:
            self._journal.refused.append(f"cancel: {reply.status_code} {reply.text[:200]}")

    async def _edit(self) -> None:
        picture = io.BytesIO()
        colour = tuple(self._dice.randrange(256) for _ in range(3))
        Image.new("RGB", (64, 64), colour).save(picture, "PNG")
        files = {"file": ("reference.png", picture.getvalue(), "image/png")}
        reply = await self._insist("POST", "/v1/references", headers=self._key(), files=files)
        if reply is None or reply.status_code != 201:
            self._refuse("reference", reply)
            return
        await self._job(kind="IMAGE_EDITOR", images=[reply.json()["id"]])

    async def _campaign(self) -> None:
        name = f"soak-{self._seed}-{self._number()}"
        spec = {
            "name": name,
            "model": KLEIN_SMALL.slug,
            "prompt": "{thing} on a table",
            "rows": [{"thing": f"thing {row}"} for row in range(CAMPAIGN_ROWS)],
            "placements": ["64x64"],
            "steps": 1,
            "lane": "bulk",
            "webhook": self._webhook,
            "webhook_each": self._dice.random() < 0.5,
        }
        reply = await self._insist("POST", "/v1/campaigns", headers=self._key(), json=spec)
        if reply is None or reply.status_code not in {200, 201}:
            self._refuse("campaign", reply)
            return
        self._journal.campaigns[name] = int(reply.json()["campaign"]["files"]["total"])

    async def _remote(self) -> None:
        uuid = await self._job(model=DEV.slug, provider="fal", size="512x512", num_inference_steps=8)
        if uuid is not None:
            self._journal.remote.add(uuid)

    async def _look(self) -> None:
        uuids = list(self._journal.images)[-50:]
        if uuids:
            path = f"/v1/jobs/{self._dice.choice(uuids)}"
            reply = await self._insist("GET", path, params={"wait": self._dice.choice((0, 5))})
            if reply is None or reply.status_code != 200:
                self._refuse("look", reply)

    # --- one call ------------------------------------------------------------------------------------------------

    async def _job(
        self, *, model: str = KLEIN_SMALL.slug, kind: str = "IMAGE_GENERATOR", provider: str = "auto", **wish: Any
    ) -> str | None:
        prompt = {"prompt": f"soak {self._number()}", "size": "64x64", "num_inference_steps": 1, "n": 1, **wish}
        lane = self._dice.choices(("interactive", "standard", "bulk"), (1, 2, 2))[0]
        body: dict[str, Any] = {
            "type": kind,
            "model": model,
            "provider": provider,
            "promptObject": prompt,
            "lane": lane,
        }
        is_hooked = self._dice.random() < 0.4
        if is_hooked:
            body["webhook"] = self._webhook
        headers = self._key()
        reply = await self._insist("POST", "/v1/jobs", headers=headers, json=body)
        if reply is None or reply.status_code != 202:
            self._refuse("job", reply)
            return None
        uuid: str = reply.json()["aiRecord"]["uuid"]
        self._journal.accepted[headers["Idempotency-Key"]] = uuid
        self._journal.images[uuid] = int(prompt["n"])
        if is_hooked:
            self._journal.hooked.add(uuid)
        if self._dice.random() < 0.1:  # the answer was lost on the way: the caller asks again
            again = await self._insist("POST", "/v1/jobs", headers=headers, json=body)
            if again is not None and (again.status_code != 202 or again.json()["aiRecord"]["uuid"] != uuid):
                self._journal.doubled.append(headers["Idempotency-Key"])
        return uuid

    async def _insist(self, method: str, path: str, **fields: Any) -> httpx.Response | None:
        """The answer, after as many tries as it takes; None: it never came."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            began = time.monotonic()
            try:
                reply = await self._http.request(method, path, **fields)
            except httpx.HTTPError as error:
                self._journal.answers[type(error).__name__] += 1
            else:
                self._journal.answers[str(reply.status_code)] += 1
                self._journal.slowest = max(self._journal.slowest, time.monotonic() - began)
                is_in_flight = reply.status_code == 409 and "retry-after" in reply.headers
                if reply.status_code < 500 and not is_in_flight:
                    return reply
                if reply.status_code != 503 and not is_in_flight:
                    self._journal.refused.append(f"{method} {path}: {reply.status_code} {reply.text[:200]}")
            await asyncio.sleep(PAUSE)
        self._journal.unanswered.append(f"{method} {path}")
        return None

    def _refuse(self, what: str, reply: httpx.Response | None) -> None:
        if reply is not None:
            self._journal.refused.append(f"{what}: {reply.status_code} {reply.text[:200]}")

    def _key(self) -> dict[str, str]:
        return {"Idempotency-Key": f"soak-{self._seed}-{self._number()}"}

    def _number(self) -> int:
        self._count += 1
        return self._count
