"""Prompts and pictures that are not wanted, on a real worker; the classifier is a small one, taught here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
from PIL import Image
from sqlalchemy import text

from fluxfarm.errors import InvalidField, ModelUnavailable, Moderated
from fluxfarm.jobs import JobState
from fluxfarm.settings import Settings
from storage.database import Database
from storage.records import Job, Tenant
from tests.making import make_job, make_request, must_claim, read_job
from tests.workers.drawing import handle, klein_worker, stored
from workers.pipeline import Pipeline
from workers.pipeline_safety import Classifier
from workers.safety import Safety

WORD = "kernkraft"


@pytest.fixture
def deny(tmp_path: Path) -> Path:
    path = tmp_path / "deny.txt"
    path.write_text(f"# not ours to draw\n{WORD}\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Taught in a second that bright pictures are not wanted."""
    import torch  # noqa: PLC0415
    from transformers import ViTConfig, ViTForImageClassification  # noqa: PLC0415

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=16,
        id2label={0: "normal", 1: "nsfw"},
        label2id={"normal": 0, "nsfw": 1},
    )
    model = ViTForImageClassification(config)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        bright = torch.rand(8, 3, 1, 1) * 2 - 1
        loss = model(pixel_values=bright.expand(8, 3, 32, 32), labels=(bright.mean((1, 2, 3)) > 0).long()).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    folder = tmp_path_factory.mktemp("classifier")
    model.save_pretrained(folder)
    how = {"size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(how))
    return folder


def job_of(database: Database, tenant: Tenant, prompt: str, **options: Any) -> Job:
    request = make_request(prompt=prompt, options=options, ignored=tuple(options))
    return make_job(database, tenant, request=request)


def rule(database: Database, **columns: Any) -> None:
    with database.engine.begin() as connection:
        for name, value in columns.items():
            connection.execute(text(f"UPDATE tenants SET {name} = :value"), {"value": value})


Start = Callable[..., Any]


@pytest.fixture
def work(local: Settings, start: Start, klein: Pipeline) -> Start:
    return lambda **changes: klein_worker(start(local.model_copy(update=changes)), klein)


def test_a_denied_word_ends_the_job_for_good_and_draws_nothing(
    work: Start, database: Database, tenant: Tenant, deny: Path
) -> None:
    worker = work(safety="block", deny_file=deny)
    job = job_of(database, tenant, f"a {WORD.upper()} plant")
    assert handle(worker, job) == "moderated"
    found = read_job(database, job)
    assert (found.status, found.attempt) == (JobState.FAILED, 1)
    assert found.problem is not None
    assert (found.problem.code, found.problem.retryable) == ("moderated", False)
    assert WORD not in found.problem.message.casefold()
    assert stored(worker) == []
    fine = job_of(database, tenant, "a fox")
    assert handle(worker, fine) == "SUCCESS"


@pytest.mark.parametrize("mode", ["off", "log"])
def test_off_and_log_stop_nothing(work: Start, database: Database, tenant: Tenant, deny: Path, mode: str) -> None:
    worker = work(safety=mode, deny_file=deny)
    job = job_of(database, tenant, f"a {WORD} plant")
    with structlog.testing.capture_logs() as said:
        assert handle(worker, job) == "SUCCESS"
    assert [one["what"] for one in said if one["event"] == "safety"] == (["prompt"] if mode == "log" else [])
    assert WORD not in str(said)


def test_a_tenant_has_its_own_mode_and_words(work: Start, database: Database, tenant: Tenant, deny: Path) -> None:
    rule(database, safety="block", deny=["/fo+x/"])
    worker = work(safety="off", deny_file=deny)
    for prompt in ("a fooox", f"a {WORD} plant"):
        assert handle(worker, job_of(database, tenant, prompt)) == "moderated"
    assert handle(worker, job_of(database, tenant, "a badger")) == "SUCCESS"


@pytest.mark.parametrize("switch", [{"disable_safety_checker": True}, {"enable_safety_checker": False}])
@pytest.mark.parametrize("may", [True, False])
def test_a_job_switches_the_checks_off_where_its_tenant_may(
    work: Start, database: Database, tenant: Tenant, deny: Path, switch: dict[str, bool], may: bool
) -> None:
    rule(database, may_disable_safety=may)
    worker = work(safety="block", deny_file=deny)
    job = job_of(database, tenant, f"a {WORD} plant", **switch)
    assert handle(worker, job) == ("SUCCESS" if may else "moderated")
    ignored = read_job(database, job).attempts[0].ignored
    assert ignored == ([] if may else list(switch)), "the record tells whether it was heeded"
    heeded = {name: not value for name, value in switch.items()}
    assert handle(worker, job_of(database, tenant, f"a {WORD} plant", **heeded)) == "moderated"


def test_a_rewritten_prompt_is_checked_as_it_is_drawn(
    work: Start, database: Database, tenant: Tenant, deny: Path
) -> None:
    worker = work(safety="block", deny_file=deny)
    job = job_of(database, tenant, "a plant")
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET revised_prompt = :prompt"), {"prompt": f"a {WORD} plant"})
    assert handle(worker, job) == "moderated"


def test_a_picture_with_an_unwanted_label_is_withheld(
    work: Start, database: Database, tenant: Tenant, classifier: Path, settings: Settings
) -> None:
    """What the small model draws is what it is; so the labels are turned round."""
    seen = Classifier(settings.model_copy(update={"classifier": classifier}))
    worker = work(safety="block", classifier=classifier, classifier_labels="nsfw, normal")
    job = job_of(database, tenant, "a fox")
    assert handle(worker, job) == "moderated"
    found = read_job(database, job)
    assert (found.status, found.images) == (JobState.FAILED, [])
    assert found.problem is not None
    assert "classifier finds" in found.problem.message
    assert seen.unwanted(Image.new("RGB", (300, 200), "white")) is not None
    assert seen.unwanted(Image.new("RGB", (300, 200), "black")) is None


def test_a_score_below_the_threshold_is_none(settings: Settings, classifier: Path) -> None:
    strict = Classifier(settings.model_copy(update={"classifier": classifier, "classifier_threshold": 1.0}))
    assert strict.unwanted(Image.new("RGBA", (30, 20), (140, 140, 140, 255))) is None


@pytest.mark.parametrize("broken", ["label", "folder", "weights"])
def test_without_its_classifier_nothing_is_given_out(
    work: Start, database: Database, tenant: Tenant, classifier: Path, tmp_path: Path, broken: str
) -> None:
    changes: dict[str, Any] = {"classifier": classifier}
    if broken == "label":
        changes["classifier_labels"] = "violence"
    if broken == "folder":
        changes["classifier"] = tmp_path / "nowhere"
    if broken == "weights":
        changes["classifier"] = tmp_path / "copy"
        (tmp_path / "copy").mkdir()
        (tmp_path / "copy" / "config.json").write_bytes((classifier / "config.json").read_bytes())
        (tmp_path / "copy" / "model.safetensors").write_bytes(b"nonsense")
    worker = work(safety="block", **changes)
    job = job_of(database, tenant, "a fox")
    assert handle(worker, job) == ModelUnavailable.code
    assert read_job(database, job).images == []


def test_pictures_that_were_put_before_are_looked_at_too(
    settings: Settings, database: Database, tenant: Tenant, classifier: Path, tmp_path: Path
) -> None:
    safety = Safety(settings.model_copy(update={"safety": "block", "classifier": classifier}), database)
    claim = must_claim(database, job_of(database, tenant, "a fox").uuid)
    path = tmp_path / "white.png"
    Image.new("RGB", (64, 64), "white").save(path)
    with pytest.raises(Moderated):
        safety.check_picture(claim, path.read_bytes())


def test_a_deny_file_with_a_broken_line_is_told_at_the_start(
    settings: Settings, database: Database, deny: Path
) -> None:
    deny.write_text("fine\n/(/\n", encoding="utf-8")
    with pytest.raises(InvalidField, match="regular expression"):
        Safety(settings.model_copy(update={"deny_file": deny}), database)


def test_of_jobs_that_are_drawn_together_only_the_denied_one_ends(
    work: Start, database: Database, tenant: Tenant, deny: Path
) -> None:
    worker = work(safety="block", deny_file=deny, batch_size=4)
    made = [job_of(database, tenant, prompt) for prompt in ("a fox", f"a {WORD} plant", "a badger")]
    assert handle(worker, made[0]) == "SUCCESS, moderated, SUCCESS"
    states = [read_job(database, job).status for job in made]
    assert states == [JobState.SUCCESS, JobState.FAILED, JobState.SUCCESS]
    assert read_job(database, made[2]).attempts[0].batch is not None
