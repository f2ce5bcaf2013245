"""The summer sale: planned, run, killed in the middle, started again, finished, delivered; each file exactly once."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.conftest import ROOT
from tests.e2e.farms import Running, clean_environment, running, wait_for
from training.words import COLOURS

pytestmark = [pytest.mark.xdist_group("farm"), pytest.mark.timeout(300)]

SALE = ROOT / "examples" / "summer-sale"
COLOUR_TOLERANCE = 60  #: of 255 a channel


def shell(farm: Running, *arguments: str) -> str:
    """``fluxfarm campaign …`` as a user types it; what it said on stdout."""
    ended = subprocess.run(
        [sys.executable, "-m", "fluxfarm", "campaign", *arguments],
        env={**clean_environment(), "FLUXFARM_URL": farm.farm.url, "FLUXFARM_API_KEY": farm.farm.api_key},
        capture_output=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr.decode()
    return ended.stdout.decode()


def counts(farm: Running) -> dict[str, Any]:
    found: dict[str, Any] = farm.get("/v1/campaigns/summer-sale").json()["campaign"]["files"]
    return found


def kill_everything(farm: Running) -> None:
    """The supervisor first, so that it starts nothing again."""
    for pid in (farm.process.pid, *farm.pids().values()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    farm.process.wait(timeout=30)
    (farm.data_dir / "farm.json").unlink(missing_ok=True)


@pytest.fixture
def sale(tmp_path: Path) -> Path:
    """The example with thirty of its products in one of its two sizes: enough renders to die in."""
    folder = tmp_path / "sale"
    shutil.copytree(SALE, folder)
    path = folder / "campaign.yaml"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line for line in lines if "name: story" not in line))
    products = folder / "products.csv"
    products.write_text("\n".join(products.read_text().splitlines()[:31]))
    return path


def test_the_summer_sale_survives_the_death_of_everything(tmp_path: Path, sale: Path) -> None:
    data_dir = tmp_path / "data"
    with running(data_dir) as farm:
        plan = json.loads(shell(farm, "plan", str(sale), "--json"))["plan"]
        assert (plan["files"], plan["renders"], plan["exists"]) == (30, 30, False)
        assert farm.get("/v1/campaigns").json()["data"] == []
        shell(farm, "run", str(sale), "--no-watch")
        seen: list[dict[str, Any]] = []

        def has_begun() -> bool:
            seen.append(counts(farm))
            return bool(seen[-1]["success"] >= 2)

        wait_for(has_begun, 90)
        kill_everything(farm)
        assert seen[-1]["queued"] > 2
    with running(data_dir) as farm:
        again = json.loads(shell(farm, "run", str(sale), "--json"))["campaign"]  # no second one
        assert again["files"]["total"] == 30
        assert "done 30/30, 0 failed" in shell(farm, "watch", str(sale))
        jobs = farm.get("/v1/jobs", campaign="summer-sale", limit=200).json()["data"]
        assert len(jobs) == 30
        shell(farm, "export", "summer-sale", "--output", str(tmp_path / "sale.zip"))
    check(tmp_path / "sale.zip", sale.parent)


def check(path: Path, folder: Path) -> None:
    """Every file of every product once, as the manifest says it."""
    products = list(csv.DictReader((folder / "products.csv").read_text(encoding="utf-8").splitlines()))
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        lines = json.loads(archive.read("manifest.json"))["files"]
        for line in lines:
            assert hashlib.sha256(archive.read(line["file"])).hexdigest() == line["sha256"]
        grounds = {line["file"].split("/")[0]: ground(archive.read(line["file"])) for line in lines}
    assert len(names) == len(set(names)) == 32
    assert [line["file"] for line in lines] == names[:-2]
    for product in products:
        assert sum(name.startswith(f"{product['sku']}/") for name in names) == 1
        assert np.abs(grounds[product["sku"]] - COLOURS[product["ground"]]).max() < COLOUR_TOLERANCE, product
    assert {(line["width"], line["height"]) for line in lines} == {(128, 128)}
    assert {line["seed"] for line in lines} == {2026}


def ground(png: bytes) -> NDArray[np.float64]:
    """The colour of the background: most of each card is flat."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), np.float64)
    median: NDArray[np.float64] = np.median(pixels.reshape(-1, 3), 0)
    return median
