"""The command line against a farm on loopback: results, exit codes, JSON purity, Ctrl-C and the live bar."""

from __future__ import annotations

import socket
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from fluxfarm import __version__, errors
from fluxfarm.airecord import Problem
from fluxfarm.cli_output import ExitCode, exit_code
from fluxfarm.jobs import JobState
from fluxfarm.problems import tree
from tests.fluxfarm.conftest import Shell
from tests.fluxfarm.stub_api import Call, StubFarm, json_reply, picture, problem

PROBLEM = Problem(code="render_failed", message="The pipeline raised.", retryable=True)
KEY_ROW = {"id": str(uuid4()), "name": "shop", "prefix": "ff_live_abcd", "scopes": ["render"], "revokedAt": None}


def posted(farm: StubFarm) -> Call:
    return farm.seen("POST", "/v1/jobs")[0]


# --- render ----------------------------------------------------------------------------------------------------------


def test_render_writes_the_picture_and_prints_its_path(farm: StubFarm, shell: Shell, tmp_path: Path) -> None:
    ended = shell("render", "a lighthouse", "-o", "out.png")
    assert (ended.code, ended.out) == (0, "out.png\n")
    assert (tmp_path / "out.png").read_bytes() == picture(0)
    uuid = next(iter(farm.jobs))
    steps = [f"{step}/8 steps" for step in range(1, 9)]
    assert ended.err.splitlines() == [f"{uuid} QUEUED", "RUNNING", *steps, "SUCCESS"]
    assert posted(farm).json["promptObject"] == {"prompt": "a lighthouse", "output_format": "png"}


def test_every_option_of_render_arrives(farm: StubFarm, shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(b"cat")
    options = ("--model=m", "--size=4:3", "-n2", "--seed=9", "--steps=3", "--guidance=2.5", "--format=jpeg")
    more = ("--quality=70", "--lane=bulk", "--tag=a", "--tag=b", "--image=cat.png", "--image=https://example.com/x.png")
    assert shell("render", "a cat", *options, *more).code == 0
    body = posted(farm).json
    assert body == {
        "type": "IMAGE_EDITOR",
        "model": "m",
        "lane": "bulk",
        "tags": ["a", "b"],
        "promptObject": {
            "prompt": "a cat",
            "size": "4:3",
            "n": 2,
            "seed": 9,
            "num_inference_steps": 3,
            "guidance": 2.5,
            "output_format": "jpeg",
            "output_quality": 70,
            "images": ["ref_1", "https://example.com/x.png"],
        },
    }
    uuid = next(iter(farm.jobs))
    assert sorted(path.name for path in tmp_path.glob("*.jpeg")) == [f"{uuid}-1.jpeg", f"{uuid}-2.jpeg"]


def test_several_pictures_are_numbered_and_a_folder_takes_them(farm: StubFarm, shell: Shell, tmp_path: Path) -> None:
    assert shell("render", "x", "-o", "out.webp", "-n", "2").out == "out-1.webp\nout-2.webp\n"
    assert (tmp_path / "out-2.webp").read_bytes() == picture(1)
    (tmp_path / "folder").mkdir()
    ended = shell("render", "x", "-o", "folder")
    assert Path(ended.out.strip()).parent.name == "folder"
    assert len(farm.jobs) == 2


def test_nothing_is_overwritten_without_force_nor_rendered_in_vain(
    farm: StubFarm, shell: Shell, tmp_path: Path
) -> None:
    (tmp_path / "out-2.webp").write_text("mine")
    ended = shell("render", "x", "-o", "out.webp", "-n", "2")
    assert ended.code == ExitCode.BAD_INPUT
    assert "--force" in ended.err
    assert not farm.calls
    assert shell("render", "x", "-o", "out.webp", "-n", "2", "--force").code == 0
    assert (tmp_path / "out-2.webp").read_bytes() == picture(1)


def test_a_file_that_appears_during_the_render_is_not_overwritten(farm: StubFarm, shell: Shell, tmp_path: Path) -> None:
    farm.meddle = lambda call: (tmp_path / "out.webp").write_text("mine") if call.method == "POST" else None
    assert shell("render", "x", "-o", "out.webp").code == ExitCode.BAD_INPUT
    assert (tmp_path / "out.webp").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("-o", "missing/out.webp"), "no folder"),
        (("-o", "out.bmp"), "no format"),
        (("-o", "out.png", "--format", "webp"), "disagree"),
        (("--image", "missing.png"), "Cannot read"),
        (("--guidance", "nan"), "JSON"),
    ],
)
def test_what_cannot_work_is_said_before_the_job_is_sent(
    farm: StubFarm, shell: Shell, arguments: tuple[str, ...], word: str
) -> None:
    ended = shell("render", "x", *arguments)
    assert ended.code == ExitCode.BAD_INPUT
    assert word in ended.err
    assert ended.out == ""
    assert not farm.seen("POST")


def test_render_json_is_the_record_and_its_files_and_nothing_else(farm: StubFarm, shell: Shell) -> None:
    ended = shell("render", "größer \u2028 than", "-o", "out.webp", "--json")
    assert (ended.code, ended.err) == (0, "")
    assert ended.json["aiRecord"]["status"] == "SUCCESS"
    assert ended.json["aiRecord"]["aiRecordDetail"]["promptObject"]["prompt"] == "größer \u2028 than"
    assert ended.json["files"] == ["out.webp"]
    assert farm.jobs


def test_no_wait_prints_the_uuid_and_get_fetches_later(farm: StubFarm, shell: Shell, tmp_path: Path) -> None:
    uuid = shell("render", "x", "--no-wait").out.strip()
    assert UUID(uuid) in farm.jobs
    assert not list(tmp_path.iterdir())
    assert shell("get", uuid, "-o", "later.webp").out == "later.webp\n"
    assert (tmp_path / "later.webp").read_bytes() == picture(0)
    assert shell("get", uuid, "-o", "later.webp").code == ExitCode.BAD_INPUT


@pytest.mark.parametrize("machine", [False, True])
def test_a_failed_job_ends_with_1_and_its_own_code(farm: StubFarm, shell: Shell, *, machine: bool) -> None:
    farm.outcome = JobState.FAILED
    farm.error = Problem(code="out_of_memory", message="The device has no room.", retryable=True)
    ended = shell("render", "x", *(["--json"] if machine else []))
    assert ended.code == ExitCode.FAILED
    if machine:
        assert ended.json["aiRecord"]["status"] == "FAILED"
        assert ended.problem["code"] == "out_of_memory"
    else:
        assert "The device has no room. [out_of_memory]" in ended.err
        assert ended.out == ""


# --- the other commands ----------------------------------------------------------------------------------------------


def test_get_shows_a_job_and_waits_for_it(farm: StubFarm, shell: Shell) -> None:
    uuid = farm.add_job({"prompt": "x"}, tags=["spring"]).uuid
    ended = shell("get", str(uuid), "--wait", "0.2")
    assert ended.code == 0
    assert "QUEUED" in ended.out
    assert "spring" in ended.out
    farm.finish(uuid, JobState.SUCCESS)
    assert shell("get", str(uuid), "--wait", "5", "--json").json["aiRecord"]["temporaryUrl"]


def test_get_of_a_job_without_pictures_does_not_pretend(farm: StubFarm, shell: Shell, tmp_path: Path) -> None:
    uuid = farm.add_job({"prompt": "x"}).uuid
    assert shell("get", str(uuid), "-o", "out.webp").code == ExitCode.BAD_INPUT
    farm.finish(uuid, JobState.CANCELED, Problem(code="canceled", message="Stopped.", retryable=False))
    assert shell("get", str(uuid), "-o", "out.webp").code == ExitCode.FAILED
    assert not list(tmp_path.iterdir())


def test_list_takes_filters_and_a_limit(farm: StubFarm, shell: Shell) -> None:
    for number in range(3):
        farm.add_job({"prompt": f"prompt {number}\x1b[31m"})
    ended = shell("list", "--limit", "2", "--status", "queued", "--tag", "spring", "--campaign", "c")
    rows = [line.split("\t") for line in ended.out.splitlines()]
    assert [row[0] for row in rows] == [str(uuid) for uuid in list(farm.jobs)[:2]]
    assert "\x1b" not in ended.out
    assert farm.calls[0].query == {"status": "QUEUED", "tag": "spring", "campaign": "c"}
    assert len(shell("list", "--json").json["data"]) == 3


def test_cancel_and_delete(farm: StubFarm, shell: Shell) -> None:
    uuid = str(farm.add_job({"prompt": "x"}).uuid)
    assert shell("cancel", uuid).out == f"{uuid} CANCELED\n"
    ended = shell("cancel", uuid, "--json")
    assert (ended.code, ended.out) == (ExitCode.BAD_INPUT, "")
    assert ended.problem["code"] == "conflict"
    assert shell("delete", uuid, "--json").json == {"deleted": uuid}
    assert shell("get", uuid).code == ExitCode.REFUSED


def test_models_and_workers(farm: StubFarm, shell: Shell) -> None:
    rows = [line.split("\t") for line in shell("models").out.splitlines()]
    assert [row[1] for row in rows] == ["-", "waits", "ready"]
    worker = {"name": "w1", "state": "ready", "provider": "local", "device": "cpu", "slots": 3, "models": ["a", "b"]}
    farm.next("GET", "/v1/workers", json_reply({"data": [worker]}), json_reply({"data": [worker]}))
    assert shell("workers").out == "w1\tready\tlocal\tcpu\t3\ta, b\n"
    assert shell("workers", "--json").json == {"data": [worker]}


def test_keys_are_made_listed_and_revoked(farm: StubFarm, shell: Shell) -> None:
    secret = "ff_live_" + "s" * 36
    farm.next("POST", "/v1/keys", json_reply(KEY_ROW | {"secret": secret}, 201))
    ended = shell("keys", "create", "shop", "--scope", "render", "--expires-days", "30")
    assert ended.out == secret + "\n"
    body = farm.seen("POST", "/v1/keys")[0].json
    assert body["scopes"] == ["render"]
    assert body["expiresAt"][-6:-3] in ("+00", "-00") or body["expiresAt"][-6] in "+-"
    farm.next("GET", "/v1/keys", json_reply({"data": [KEY_ROW]}), json_reply({"data": [KEY_ROW]}))
    assert "\tlive\t" in shell("keys", "list").out
    assert shell("keys", "list", "--json").json["data"][0]["prefix"] == "ff_live_abcd"
    farm.next("DELETE", f"/v1/keys/{KEY_ROW['id']}", json_reply({}))
    assert shell("keys", "revoke", str(KEY_ROW["id"])).code == 0


def test_a_key_is_rotated(farm: StubFarm, shell: Shell) -> None:
    secret = "ff_live_" + "s" * 36
    farm.next("POST", f"/v1/keys/{KEY_ROW['id']}/rotate", json_reply(KEY_ROW | {"secret": secret}, 201))
    assert shell("keys", "rotate", str(KEY_ROW["id"]), "--grace", "60").out == secret + "\n"
    assert farm.seen("POST", f"/v1/keys/{KEY_ROW['id']}/rotate")[0].json == {"grace": 60}


def test_tenants_are_made_listed_changed_and_get_a_key(farm: StubFarm, shell: Shell) -> None:
    row = {"id": str(uuid4()), "name": "agency", "weight": 0.5, "models": None, "maxRunning": 2, "commercial": True}
    farm.next("POST", "/v1/tenants", json_reply(row, 201))
    wanted = ("--weight", "0.5", "--commercial", "--max-running", "2", "--prompt-days", "30", "--model", "flux-2-dev")
    assert shell("tenants", "create", "agency", *wanted).out == f"{row['id']}\n"
    assert farm.seen("POST", "/v1/tenants")[0].json == {
        "name": "agency",
        "weight": 0.5,
        "commercial": True,
        "maxRunning": 2,
        "models": ["flux-2-dev"],
        "retention": {"promptDays": 30},
    }
    farm.next("PATCH", f"/v1/tenants/{row['id']}", json_reply(row))
    assert shell("tenants", "set", str(row["id"]), "--max-running", "0", "--model", "all", "--json").json == row
    assert farm.seen("PATCH", f"/v1/tenants/{row['id']}")[0].json == {"maxRunning": None, "models": None}
    farm.next("GET", "/v1/tenants", json_reply({"data": [row]}))
    assert shell("tenants", "list").out == f"{row['id']}\t0.5\t2\t-\tcommercial\tall\tagency\n"
    farm.next("POST", f"/v1/tenants/{row['id']}/keys", json_reply(KEY_ROW | {"secret": "ff_live_x"}, 201))
    assert shell("keys", "create", "shop", "--tenant", str(row["id"])).out == "ff_live_x\n"


def test_webhooks_are_made_listed_and_replayed(farm: StubFarm, shell: Shell) -> None:
    row = {"id": "wh_1", "url": "https://shop.example.com/hook", "disabledAt": None}
    farm.next("POST", "/v1/webhooks", json_reply(row | {"secret": "whsec_c2VjcmV0"}, 201))
    assert shell("webhooks", "create", row["url"] or "").out == "whsec_c2VjcmV0\n"
    assert farm.seen("POST", "/v1/webhooks")[0].json == {"url": row["url"]}
    farm.next("GET", "/v1/webhooks", json_reply({"data": [row]}))
    assert shell("webhooks", "list").out == f"wh_1\tlive\t{row['url']}\n"
    farm.next("POST", "/v1/webhooks/deliveries/msg_1/replay", json_reply({"id": "msg_1", "state": "pending"}, 202))
    assert shell("webhooks", "replay", "msg_1", "--json").json["state"] == "pending"


def test_version_and_help_need_no_farm(shell: Shell) -> None:
    assert shell("--version").out == f"fluxfarm {__version__}\n"
    for arguments in ((), ("render",), ("get",), ("keys",), ("up",), ("demo",), ("doctor",)):
        assert "Usage" in shell(*arguments, "--help").out
    assert "Exit codes" in shell("--help").out


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(tree()))
def test_every_error_has_an_exit_code_that_fits(kind: type[errors.FluxfarmError]) -> None:
    expected = {401: ExitCode.REFUSED, 403: ExitCode.REFUSED, 404: ExitCode.REFUSED, 429: ExitCode.UNREACHABLE}
    usual = ExitCode.BAD_INPUT if kind.status < 500 else ExitCode.UNREACHABLE
    wanted = expected.get(kind.status, usual)
    if issubclass(kind, errors.RenderError):
        wanted = ExitCode.FAILED
    if kind is errors.ModelNotFound:
        wanted = ExitCode.BAD_INPUT
    assert exit_code(kind("x")) is wanted


def test_the_apis_sentence_and_code_are_shown(farm: StubFarm, shell: Shell) -> None:
    refusal = errors.InvalidSize("flux cannot render 9x9: each side must be 64 to 4096 pixels.", param="size")
    farm.next("POST", "/v1/jobs", problem(refusal), problem(refusal))
    ended = shell("render", "x", "--size", "9x9")
    assert (ended.code, ended.out) == (ExitCode.BAD_INPUT, "")
    assert f"{refusal.message} [invalid_size]" in ended.err
    told = shell("render", "x", "--size", "9x9", "--json").problem
    assert (told["code"], told["status"], told["param"], told["detail"]) == (
        "invalid_size",
        400,
        "size",
        refusal.message,
    )


def test_a_wrong_key_is_refused_and_never_shown(farm: StubFarm, shell: Shell) -> None:
    ended = shell("--api-key", "ff_live_wrong", "list")
    assert ended.code == ExitCode.REFUSED
    assert "ff_live_wrong" not in ended.err + ended.out
    assert farm.calls[0].headers["authorization"] == "Bearer ff_live_wrong"


def test_no_farm_ends_with_3_and_says_how_to_get_one(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("FLUXFARM_URL", "FLUXFARM_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    ended = shell("list")
    assert ended.code == ExitCode.UNREACHABLE
    assert "fluxfarm up" in ended.err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    ended = shell("--url", url, "list", "--json")
    assert (ended.code, ended.problem["code"], ended.out) == (ExitCode.UNREACHABLE, "unavailable", "")
    assert url in ended.problem["detail"]


@pytest.mark.parametrize("arguments", [("list", "--limit", "0"), ("nonsense",), ("get",), ("list", "--status", "DONE")])
def test_wrong_usage_ends_with_2(shell: Shell, arguments: tuple[str, ...]) -> None:
    assert shell(*arguments).code == ExitCode.BAD_INPUT
    ended = shell(*arguments, "--json")
    assert (ended.code, ended.out) == (ExitCode.BAD_INPUT, "")
    assert ended.problem["code"] == "usage"


def test_a_wrong_setting_is_named_without_a_traceback(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUXFARM_PORT", "ninety")
    ended = shell("list")
    assert ended.code == ExitCode.BAD_INPUT
    assert "FLUXFARM_PORT" in ended.err
