"""``fluxfarm retry``, and the list of what it can be used on."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from fluxfarm.airecord import Problem
from fluxfarm.cli_output import ExitCode
from fluxfarm.jobs import JobState
from tests.fluxfarm.conftest import Shell
from tests.fluxfarm.stub_api import StubFarm, json_reply

PROBLEM = Problem(code="render_failed", message="The pipeline raised.", retryable=True)


def test_retry_prints_the_new_job(farm: StubFarm, shell: Shell) -> None:
    old = farm.finish(farm.add_job({"prompt": "a"}).uuid, JobState.FAILED, PROBLEM)
    ended = shell("retry", str(old.uuid))
    assert ended.code == ExitCode.OK
    assert farm.jobs[UUID(ended.out.strip())].retry_of == old.uuid
    assert shell("retry", str(old.uuid), "--json").json["aiRecord"]["retryOf"] == str(old.uuid)
    good = farm.finish(farm.add_job({"prompt": "a"}).uuid, JobState.SUCCESS)
    assert shell("retry", str(good.uuid)).code == ExitCode.BAD_INPUT


def test_retry_failed_sends_what_narrows_it_and_tells_what_it_made(farm: StubFarm, shell: Shell) -> None:
    old = [farm.finish(farm.add_job({"prompt": "a"}).uuid, JobState.FAILED, PROBLEM) for _ in range(2)]
    ended = shell("retry", "--failed", "--error", "render_failed", "--campaign", "spring", "--tag", "sale")
    assert (ended.code, ended.err) == (ExitCode.OK, "2 retried\n")
    assert [farm.jobs[UUID(line)].retry_of for line in ended.out.split()] == [one.uuid for one in old]
    asked = farm.seen("POST", "/v1/jobs/retry")[0].json
    assert asked == {"error": "render_failed", "campaign": "spring", "tag": "sale"}
    skipped = {"retried": 0, "jobs": [], "skipped": [{"job": str(old[0].uuid), "code": "reference_gone"}]}
    farm.next("POST", "/v1/jobs/retry", json_reply(skipped, 202), json_reply(skipped, 202))
    assert shell("retry", "--failed").err == f"{old[0].uuid} cannot be retried: reference_gone\n0 retried\n"
    told = shell("retry", "--failed", "--json").json
    assert (told["retried"], told["jobs"], told["skipped"]) == (0, [], skipped["skipped"])


@pytest.mark.parametrize("words", [(), ("--failed", str(uuid4())), ("--error", "x"), (str(uuid4()), "--tag", "x")])
def test_retry_wants_one_job_or_all_failed_ones(farm: StubFarm, shell: Shell, words: tuple[str, ...]) -> None:
    ended = shell("retry", *words)
    assert ended.code == ExitCode.BAD_INPUT
    assert "--failed" in ended.err
    assert farm.calls == []


def test_list_shows_the_dead_letters_of_one_kind(farm: StubFarm, shell: Shell) -> None:
    assert shell("list", "--status", "FAILED", "--error", "poison").code == ExitCode.OK
    assert farm.seen("GET", "/v1/jobs")[0].query == {"status": "FAILED", "error": "poison"}
