"""One worker process and its parts; made when Celery starts it."""

from __future__ import annotations

import os
import platform
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Final
from uuid import UUID, uuid4

import structlog

from fluxfarm.errors import DatabaseUnavailable, FluxfarmError
from fluxfarm.settings import Settings
from fluxfarm.tracing import Tracing
from storage.database import Database
from storage.dispatcher import Dispatcher
from storage.notifier import Notifier
from storage.objects import ObjectStore, make_store
from storage.previews import Previews
from storage.provenance import open_provenance
from storage.queue import REMOTE_QUEUE, Queue
from storage.records import Worker
from storage.repository import workers
from storage.repository.turns import Claimant
from storage.repository.workers import Condition, Reading
from storage.watermark import open_watermark
from workers import alive, readings
from workers.delivery import end
from workers.leases import Held, LeaseKeeper
from workers.previews import PreviewSender
from workers.providers.drawn import Drawn, Renderer
from workers.providers.local import LocalProvider
from workers.providers.remote import RemoteRenderer
from workers.render import hand_back, render_next
from workers.safety import Safety

SPARE_CONNECTIONS: Final = 3  #: for the lease keeper and the start
COURIERS: Final = 4  #: threads that encode and put the pictures of jobs that were drawn together
MOST_CONNECTIONS: Final = 12  #: for the slots; those of a remote worker wait for a provider most of the time
PASS_PAUSE: Final = 0.25  #: seconds before a ticket is handed on to a worker that has the model warm
PATIENCE: Final = 10.0  #: seconds that a job waits for such a worker, where the time of a load is not known
PASSED_ON: Final = "left to a warm worker"
START_PAUSE: Final = 1.0  #: seconds between two tries to register while the database is away

log = structlog.get_logger()


class RenderWorker:
    """Holds the model, the leases and the connections of a process, and renders the jobs that tickets name."""

    def __init__(self, settings: Settings, queues: tuple[str, ...], *, slots: int) -> None:
        """``queues`` are those that the process takes tickets from."""
        self.id: UUID = uuid4()
        self.name = f"{platform.node()}:{os.getpid()}"
        self.settings = settings
        self.queues = queues
        self.slots = slots
        connections = min(slots, MOST_CONNECTIONS) + COURIERS + SPARE_CONNECTIONS
        self.database = Database.from_settings(settings, pool_size=connections)
        self.store: ObjectStore = make_store(settings)
        self.queue = Queue(settings)
        self.dispatcher = Dispatcher(self.database, self.queue, window=settings.window)
        self.notifier = Notifier(self.database, self.queue)
        self.provenance = open_provenance(settings)
        self.watermark = open_watermark(settings)
        self._couriers = ThreadPoolExecutor(COURIERS, "couriers")
        self.tracing = Tracing.from_settings(settings, "worker")
        self.safety = Safety(settings, self.database)
        self.previews = PreviewSender(Previews(settings.redis_url))
        self.provider: Renderer = (
            RemoteRenderer(settings, self.database) if queues == (REMOTE_QUEUE,) else LocalProvider(settings, queues)
        )
        self._residents = self.provider.residents if isinstance(self.provider, LocalProvider) else None
        if self._residents is not None:
            self._residents.changed = self._tell
        self.leases = LeaseKeeper(
            self.database,
            lease=settings.lease,
            renewal=settings.lease_renewal,
            beat=self._heartbeat,
            presence=workers.presence(self.id),
        )
        self.claimant = Claimant(worker_id=self.id, worker=self.name, provider=self.provider.name, lease=settings.lease)
        self._state = "starting"
        self.retiring = False  #: told to stop: what runs is finished, nothing more is claimed

    def start(self) -> None:
        """Register, as soon as the database answers, and begin to keep leases; ``warm_up`` loads the model."""
        while True:
            try:
                self._heartbeat()
                break
            except DatabaseUnavailable as error:
                log.warning("start_postponed", error=error.code)
                time.sleep(START_PAUSE)
        self.leases.start()

    def _condition(self) -> Condition:
        residents = self._residents
        loading = None if residents is None else residents.loading
        return Condition(
            state="loading" if loading is not None and self._state != "stopping" else self._state,
            device=self.provider.device,
            warm=[] if residents is None else list(residents.pipelines),
            loading=None if loading is None else loading.slug,
            loaded_at=None if loading is None else loading.ready_at,
        )

    def _row(self, condition: Condition, reading: Reading) -> Worker:
        return Worker(
            id=self.id,
            name=self.name,
            pid=os.getpid(),
            provider=self.provider.name,
            queues=list(self.queues),
            models=list(self.provider.models),
            slots=self.slots,
            **asdict(condition),
            **asdict(reading),
        )

    def retire(self) -> None:
        """Claim nothing more; safe in a signal handler."""
        self.retiring = True

    def warm_up(self) -> None:
        """Load the models beside the consumer, then count as ready; a broken model fails its jobs, not the worker."""
        threading.Thread(target=self._warm_up, name="warm-up", daemon=True).start()

    def _warm_up(self) -> None:
        self.provider.warm_up()
        self._state = "ready"
        self._tell()
        log.info("worker_ready", worker=self.name, models=list(self.provider.models), device=self.provider.device)

    def _tell(self) -> None:
        """Let everybody know at once how the worker stands."""
        try:
            self._heartbeat()
        except FluxfarmError as error:
            log.warning("heartbeat_failed", error=error.code)

    def handle(self, queue: str, ticket: UUID) -> str:
        """Render the job whose turn it is; gives a word for Flower, never a prompt."""
        if self._leaves(queue):
            time.sleep(PASS_PAUSE)
            if not self.queue.enqueue(queue, ticket):
                hand_back(self, queue, ticket)
            return PASSED_ON
        return render_next(self, queue, ticket)

    def _leaves(self, queue: str) -> bool:
        """Whether another worker has the model warm, so that waiting for it is cheaper than a load here."""
        model = self.provider.model_of(queue) if isinstance(self.provider, LocalProvider) else None
        if self._residents is None or model is None or model in self._residents.pipelines or self.retiring:
            return False
        patience = self._residents.seconds(model) or PATIENCE
        try:
            with self.database.transaction() as session:
                return workers.leave_to_the_warm(session, self.id, model, queue, patience)
        except DatabaseUnavailable:
            return False

    def deliver(self, drawn: list[tuple[Held, Drawn | FluxfarmError]]) -> list[str]:
        """End each of the jobs that were drawn together, beside each other; this slot draws again when all are done."""
        if len(drawn) == 1:
            return [end(self, *drawn[0])]
        return list(self._couriers.map(lambda one: end(self, *one), drawn))

    def _heartbeat(self) -> None:
        alive.touch(self.settings.alive_file)
        condition, reading = self._condition(), readings.read(self.provider.device)
        with self.database.transaction() as session:
            if not workers.heartbeat(session, self.id, condition, reading):
                workers.register(session, self._row(condition, reading))  # new, or forgotten after an hour of silence

    def stop(self) -> None:
        """Sign off; what was still running is found by its lease."""
        self._state = "stopping"
        self.leases.stop()
        try:
            with self.database.transaction() as session:
                workers.remove(session, self.id)
        except FluxfarmError as error:
            log.warning("sign_off_failed", error=error.code)
        self._couriers.shutdown(cancel_futures=True)
        self.provider.close()
        self.previews.close()
        self.queue.close()
        self.database.close()
        self.tracing.close()
