from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants as hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from fluxfarm.errors import ModelUnavailable
from workers.pipeline import Drawing, Pipeline
from workers.pipeline_loading import content_revision, pick_device, pick_dtype

WEIGHTS = {
    "text_encoder": "text_encoder/model.safetensors",
    "transformer": "transformer/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def truncate(folder: Path, part: str) -> None:
    path = folder / WEIGHTS[part]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(folder: Path, part: str) -> None:
    (folder / WEIGHTS[part]).write_bytes(b"")


def scribble(folder: Path, part: str) -> None:
    (folder / WEIGHTS[part]).write_bytes(b"\xff" * 4096)


def lose_one_weight(folder: Path, part: str) -> None:
    weights = load_file(folder / WEIGHTS[part])
    del weights[next(key for key in sorted(weights) if key.endswith("weight"))]
    save_file(weights, folder / WEIGHTS[part], {"format": "pt"})


def misshape_one_weight(folder: Path, part: str) -> None:
    weights = load_file(folder / WEIGHTS[part])
    weights[next(key for key in sorted(weights) if weights[key].ndim > 1)] = torch.zeros(3, 3)
    save_file(weights, folder / WEIGHTS[part], {"format": "pt"})


def make_not_a_number(folder: Path, part: str) -> None:
    weights = load_file(folder / WEIGHTS[part])
    for value in weights.values():
        if value.is_floating_point():
            value.fill_(float("nan"))
    save_file(weights, folder / WEIGHTS[part], {"format": "pt"})


def pickle_weights(folder: Path, part: str) -> None:
    path = folder / WEIGHTS[part]
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()


def remove_part(folder: Path, part: str) -> None:
    shutil.rmtree(folder / part)


def remove_config(folder: Path, part: str) -> None:
    (folder / part / "config.json").unlink()


def halve_config(folder: Path, part: str) -> None:
    (folder / part / "config.json").write_text('{"hidden_size"')


def empty_config(folder: Path, part: str) -> None:
    (folder / part / "config.json").write_text("{}")


DAMAGES = [
    truncate,
    empty,
    scribble,
    lose_one_weight,
    misshape_one_weight,
    make_not_a_number,
    pickle_weights,
    remove_part,
    remove_config,
    halve_config,
    empty_config,
]


@pytest.mark.parametrize("part", WEIGHTS)
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_broken_part_is_model_unavailable_and_says_where_and_what_to_do(
    damage: Callable[[Path, str], None], part: str, klein_folder: Path, copied: Callable[[Path], Path]
) -> None:
    folder = copied(klein_folder)
    damage(folder, part)
    with pytest.raises(ModelUnavailable) as caught:
        Pipeline.load(folder, device="cpu")
    message = caught.value.message
    assert f"{folder} is broken (" in message
    assert message.endswith("download or build it again.")
    assert "\n" not in message
    assert len(message) < 500


@pytest.mark.parametrize("damage", [truncate, lose_one_weight, misshape_one_weight, remove_config])
def test_a_broken_text_encoder_of_the_dev_shape_is_found_as_well(
    damage: Callable[[Path, str], None], dev_folder: Path, copied: Callable[[Path], Path]
) -> None:
    folder = copied(dev_folder)
    damage(folder, "text_encoder")
    with pytest.raises(ModelUnavailable, match="is broken"):
        Pipeline.load(folder, device="cpu")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", None),
        ("tokenizer.json", b"{}"),
        ("tokenizer.json", b"\xff\xfe"),
        ("tokenizer_config.json", b"{"),
        ("chat_template.jinja", None),
        ("chat_template.jinja", b"{% for"),
        ("chat_template.jinja", b"\xff\xfe"),
    ],
)
def test_a_broken_tokenizer_is_model_unavailable(
    name: str, content: bytes | None, klein_folder: Path, copied: Callable[[Path], Path]
) -> None:
    path = copied(klein_folder) / "tokenizer" / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelUnavailable, match="is broken"):
        Pipeline.load(path.parent.parent, device="cpu")


def test_a_tokenizer_with_more_tokens_than_the_text_encoder_knows_is_refused(
    klein_folder: Path, copied: Callable[[Path], Path]
) -> None:
    folder = copied(klein_folder)
    path = folder / "tokenizer" / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    first = tokenizer["added_tokens"][0]
    tokenizer["added_tokens"] += [{**first, "id": number, "content": f"<{number}>"} for number in range(2000, 3000)]
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(ModelUnavailable, match=r"counts up to 2\d{3}, its text encoder knows 1280 tokens"):
        Pipeline.load(folder, device="cpu")


def test_parts_of_different_models_that_do_not_fit_together_are_found_when_loading(
    klein_folder: Path, copied: Callable[[Path], Path]
) -> None:
    folder = copied(klein_folder)
    path = folder / "text_encoder" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "num_hidden_layers": 20, "layer_types": config["layer_types"][:20]}))
    with pytest.raises(ModelUnavailable, match="is broken"):
        Pipeline.load(folder, device="cpu")


def index_with(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "model_index.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def write_index(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "model_index.json").write_text(text)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (shutil.rmtree, "does not exist"),
        (lambda folder: (folder / "model_index.json").unlink(), "has no model_index.json"),
        (write_index("{"), "not JSON"),
        (write_index("[" * 100_000), "not JSON"),
        (write_index("[]"), "not a JSON object"),
        (write_index("\udcff".encode("utf-8", "surrogateescape").decode("latin-1")), "not JSON"),
        (write_index("{}"), "holds nothing"),
        (index_with(_class_name="StableDiffusionPipeline"), "holds 'StableDiffusionPipeline'; the farm renders Flux2"),
        (index_with(_class_name=["pipeline", "Flux2Pipeline"]), "the farm renders Flux2Pipeline"),
        (index_with(_class_name="Flux2Pipeline"), "text_encoder is"),
        (index_with(vae=["diffusers", "AutoencoderKL"]), "vae is"),
        (index_with(scheduler=["my_scheduler", "Mine"]), "scheduler is"),
        (index_with(tokenizer=["my_tokenizer", "Mine"]), "tokenizer is"),
        (index_with(transformer=[None, None]), "transformer is"),
        (lambda folder: shutil.rmtree(folder / "scheduler"), "scheduler/ is missing"),
        (lambda folder: (folder / "scheduler/scheduler_config.json").write_text("{}"), "does not describe a FlowMatch"),
    ],
)
def test_a_folder_that_is_no_flux2_pipeline_is_refused_before_anything_is_read(
    damage: Callable[[Path], object], says: str, klein_folder: Path, copied: Callable[[Path], Path]
) -> None:
    folder = copied(klein_folder)
    damage(folder)
    with pytest.raises(ModelUnavailable) as caught:
        Pipeline.load(folder, device="cpu")
    assert says in caught.value.message
    assert str(folder) in caught.value.message


def test_code_in_a_model_folder_never_runs(klein_folder: Path, copied: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = copied(klein_folder)
    bomb = f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n"
    for name in ("pipeline.py", "tokenizer/mine.py", "text_encoder/mine.py", "scheduler/mine.py"):
        (folder / name).write_text(bomb)
    path = folder / "text_encoder" / "config.json"
    config = {**json.loads(path.read_text()), "auto_map": {"AutoModelForCausalLM": "mine.Mine", "AutoConfig": "mine.C"}}
    path.write_text(json.dumps(config))
    Pipeline.load(folder, device="cpu").close()
    assert not (tmp_path / "ran").exists()


def test_a_loaded_pipeline_tells_what_it_is(klein: Pipeline, dev: Pipeline, klein_folder: Path) -> None:
    assert (klein.class_name, dev.class_name) == ("Flux2KleinPipeline", "Flux2Pipeline")
    assert (klein.device, klein.dtype) == ("cpu", "float32")
    assert klein.revision == content_revision(klein_folder)
    assert klein.revision != dev.revision


def test_loading_prints_nothing(klein_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Pipeline.load(str(klein_folder), device="cpu").close()
    assert capfd.readouterr() == ("", "")


def test_bfloat16_loads_and_draws(klein_folder: Path) -> None:
    pipeline = Pipeline.load(klein_folder, device="cpu", dtype="bfloat16")
    assert pipeline._pipe.transformer.dtype == pipeline._pipe.text_encoder.dtype == torch.bfloat16
    (image,) = pipeline.draw(Drawing("a cat", 64, 64, 2, 3.0, (1,)), lambda _done, _total: None)
    assert image.size == (64, 64)


HAS_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=HAS_CUDA), "cuda:77", "gpu", "cpu:0", "meta", ""])
def test_a_device_that_is_not_there_is_model_unavailable(device: str, klein_folder: Path) -> None:
    with pytest.raises(ModelUnavailable, match="FLUXFARM_DEVICE"):
        Pipeline.load(klein_folder, device=device)


def test_device_and_dtype_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (pick_dtype("auto", "cuda:1"), pick_dtype("auto", "mps")) == ("bfloat16", "bfloat16")
    assert pick_dtype("float16", "cpu") == "float16"
    with pytest.raises(ModelUnavailable, match="FLUXFARM_DTYPE"):
        pick_dtype("int8", "cpu")
    for cuda, mps, expected in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=cuda: there)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda there=mps: there)
        assert pick_device("auto") == expected


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, klein_folder: Path) -> Path:
    """The hub's own cache with one model in it."""
    snapshot = tmp_path / "models--owner--klein" / "snapshots" / COMMIT
    shutil.copytree(klein_folder, snapshot)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    return snapshot


@pytest.fixture
def empty_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A hub that knows no model; gives the paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(hub, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(hub, "ENDPOINT", address)
        yield asked
        server.shutdown()
        thread.join()


def test_a_hub_id_with_its_commit_loads_from_the_cache_without_the_network(
    hub_cache: Path, empty_hub: list[str]
) -> None:
    pipeline = Pipeline.load("owner/klein", revision=COMMIT, device="cpu")
    assert pipeline.revision == COMMIT
    assert Pipeline.load(hub_cache, device="cpu").revision == COMMIT  # the folder itself says it too
    assert empty_hub == []


def test_a_hub_id_that_is_not_in_the_cache_says_how_to_fetch_it(hub_cache: Path, empty_hub: list[str]) -> None:
    with pytest.raises(ModelUnavailable, match=f"hf download owner/other --revision {COMMIT}") as caught:
        Pipeline.load("owner/other", revision=COMMIT, device="cpu")
    assert "FLUXFARM_ALLOW_DOWNLOADS" in caught.value.message
    shutil.rmtree(hub_cache / "vae")  # a download that was cut off
    with pytest.raises(ModelUnavailable, match="vae/ is missing"):
        Pipeline.load("owner/klein", revision=COMMIT, device="cpu")
    assert empty_hub == []


@pytest.mark.usefixtures("hub_cache")
def test_a_hub_that_does_not_know_the_model_is_model_unavailable(empty_hub: list[str]) -> None:
    with pytest.raises(ModelUnavailable, match="check the name, the revision, the network"):
        Pipeline.load("owner/other", revision=COMMIT, device="cpu", allow_downloads=True)
    assert f"/owner/other/resolve/{COMMIT}/model_index.json" in empty_hub


@pytest.mark.usefixtures("hub_cache")
@pytest.mark.parametrize("revision", [None, "main", COMMIT[:7], COMMIT.upper()])
def test_a_hub_id_needs_a_full_commit(revision: str | None) -> None:
    with pytest.raises(ModelUnavailable, match="pinned revision"):
        Pipeline.load("owner/klein", revision=revision, device="cpu", allow_downloads=True)


def test_the_content_revision_follows_every_byte_that_counts(
    klein_folder: Path, copied: Callable[[Path], Path]
) -> None:
    folder = copied(klein_folder)
    revision = content_revision(folder)
    assert revision == content_revision(klein_folder)
    assert len(revision) == 40
    (folder / "README.md").write_text("words")
    assert content_revision(folder) == revision
    weights = folder / WEIGHTS["vae"]
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    assert content_revision(folder) != revision


def test_of_a_large_file_the_first_and_the_last_bytes_count(tmp_path: Path) -> None:
    path = tmp_path / "large.safetensors"
    with path.open("wb") as file:
        file.truncate((65 << 20) + 1)
    revisions = {content_revision(tmp_path)}
    for place in (0, 65 << 20):
        with path.open("r+b") as file:
            file.seek(place)
            file.write(b"x")
        revisions.add(content_revision(tmp_path))
    assert len(revisions) == 3


def test_importing_the_pipeline_does_not_import_torch() -> None:
    code = (
        "import sys, workers.pipeline, workers.pipeline_small; print('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
