"""An S3 server on loopback that can be killed, frozen and hidden behind 503s; what it has stored lies on the disk."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fluxfarm.settings import Settings
from storage.objects_s3 import S3Store
from tests.s3.faulty import Call, Proxy, Reply, Verdict, proxy
from tests.s3.servers import ACCESS_KEY, SECRET_KEY, Server, answers, free_port, launch

BUCKET: Final = "fluxfarm-soak"
TRIES: Final = 5


class Bucket:
    """rclone, and the door that the farm sees it through."""

    def __init__(self, folder: Path) -> None:
        """Nothing is started yet."""
        (folder / "data").mkdir(parents=True)
        self.server = Server("rclone", free_port(), folder / "data")
        self.refuses = False
        self.door: Proxy | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, _call: Call) -> Verdict:
        """The door's rule."""
        return Reply(503, "SlowDown") if self.refuses else "pass"

    def start(self) -> None:
        """Start the server where it was before."""
        for _ in range(TRIES):
            self._process = launch(self.server)
            if answers(self.server, self._process):
                return
            self.kill()
        raise RuntimeError("the S3 server does not start")

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """Freeze it or let it go on."""
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, number)

    def environment(self, url: str) -> dict[str, str]:
        """The settings that lead there."""
        return {
            "S3_BUCKET": BUCKET,
            "S3_ENDPOINT_URL": url,
            "S3_ACCESS_KEY_ID": ACCESS_KEY,
            "S3_SECRET_ACCESS_KEY": SECRET_KEY,
        }

    def direct(self) -> S3Store:
        """The bucket without the door."""
        return S3Store(Settings.model_validate(self.environment(self.server.url)))


@contextmanager
def opened(folder: Path) -> Iterator[Bucket]:
    """The bucket with its door; its server runs."""
    bucket = Bucket(folder)
    try:
        bucket.start()
        with proxy(bucket.server.port, bucket) as door:
            bucket.door = door
            yield bucket
    finally:
        bucket.kill()
