"""The README's snippets, run as they stand against a farm; only the address and the folder differ."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.e2e.farms import Running, clean_environment

pytestmark = pytest.mark.xdist_group("farm")
SNIPPETS = re.findall(
    r"<!-- tested -->\n```(sh|python)\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL
)


def test_the_snippets_do_what_they_say(farm: Running, tmp_path: Path) -> None:
    folder = tmp_path / ".fluxfarm"
    folder.symlink_to(farm.data_dir)
    environment = {
        **clean_environment(),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "FLUXFARM_URL": farm.farm.url,
        "FLUXFARM_API_KEY": farm.farm.api_key,
    }
    shell = ["set -eu"]
    for language, code in SNIPPETS:
        shell.append(code if language == "sh" else f"{sys.executable} - <<'CODE'\n{code}CODE")
    script = "\n".join(shell).replace("http://127.0.0.1:8000", farm.farm.url)
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=90
    )
    assert done.returncode in {0, 1}, done.stderr
    assert "SUCCESS" in done.stdout, done.stderr
    record = json.loads((tmp_path / "record.json").read_text())["aiRecord"]
    assert record["aiRecordDetail"]["promptObject"]["size"] == "128x128"
    for name, size in (("picture.webp", (128, 128)), ("car.webp", (128, 120)), ("bag.webp", (128, 128))):
        with Image.open(tmp_path / name) as image:
            assert (image.format, image.size) == ("WEBP", size), name
    edit = json.loads((tmp_path / "edit.json").read_text())["aiRecord"]
    assert (edit["status"], edit["type"]) == ("SUCCESS", "IMAGE_EDITOR")
    assert "ok    python" in done.stdout, done.stderr
