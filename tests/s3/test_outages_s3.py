"""What the S3 store does when the server, or the way to it, is sick."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count

import pytest

from fluxfarm.errors import Conflict, StoreUnavailable
from storage.objects import reference_key, tenant_prefix
from storage.objects_s3 import Patience, S3Store
from tests.s3.conftest import Make
from tests.s3.faulty import Call, Reply, Rule, Verdict, black_hole, proxy
from tests.s3.servers import ACCESS_KEY, SECRET_KEY, Server, free_port
from tests.storage.object_conformance import TENANT

KEY = reference_key(TENANT)
QUICK = Patience(connect=0.2, read=0.2, attempts=1)

CALLS: dict[str, Callable[[S3Store], object]] = {
    "put": lambda store: store.put(KEY, b"x" * 5_000_000, "image/png"),
    "get": lambda store: store.get(KEY),
    "stat": lambda store: store.stat(KEY),
    "keys": lambda store: list(store.keys("t/")),
    "delete_prefix": lambda store: store.delete_prefix(tenant_prefix(TENANT)),
    "check": lambda store: store.check(),
    "ensure_bucket": lambda store: store.ensure_bucket(),
}


def fails(store: S3Store, call: Callable[[S3Store], object]) -> StoreUnavailable:
    with pytest.raises(StoreUnavailable) as caught:
        call(store)
    assert caught.value.retryable
    assert caught.value.retry_after
    assert not any(word in caught.value.message for word in (ACCESS_KEY, SECRET_KEY, KEY, "http"))
    return caught.value


def test_a_server_that_never_answers_is_left_in_time(make: Make) -> None:
    with black_hole() as url:
        store = make(url, patience=QUICK)
        for call in CALLS.values():
            start = time.monotonic()
            fails(store, call)
            assert time.monotonic() - start < 5  # about 0.2 s, and 1 s for the 100-continue of a put


def test_the_bound_is_attempts_times_timeouts(make: Make) -> None:
    with black_hole() as url:
        start = time.monotonic()
        fails(make(url, patience=Patience(0.2, 0.3, 2)), CALLS["get"])
        assert 0.6 <= time.monotonic() - start < 5


def test_nobody_there_is_an_outage(make: Make) -> None:
    store = make(f"http://127.0.0.1:{free_port()}", patience=QUICK)
    for call in CALLS.values():
        fails(store, call)


def test_a_server_that_refuses_is_an_outage(make: Make) -> None:
    replies = [
        Reply(503, "SlowDown"),
        Reply(500, "InternalError"),
        Reply(403, "AccessDenied"),
        Reply(503, body=b"<html>maintenance</html>"),
        Reply(502, body=b"\xff\x00 not text"),
    ]
    verdicts: list[Reply] = []
    with proxy(0, lambda _: verdicts[-1]) as sick:
        store = make(sick.url, patience=QUICK)
        for reply in replies:
            verdicts.append(reply)
            for call in CALLS.values():
                fails(store, call)
        assert len(sick.calls) == len(replies) * len(CALLS)


def test_a_portal_that_answers_for_the_server_is_an_outage(make: Make) -> None:
    with proxy(0, lambda _: Reply(200, body=b"<html>please log in<br></html>")) as portal:
        fails(make(portal.url, patience=QUICK), CALLS["keys"])


def test_a_short_outage_is_ridden_out(ministack: Server, make: Make) -> None:
    make(ministack.url).ensure_bucket()
    turns = count()
    with proxy(ministack.port, lambda _: Reply(503, "SlowDown") if next(turns) < 2 else "pass") as way:
        make(way.url, patience=Patience(1, 5, 3)).put(KEY, b"x", "image/png")
        assert [call.method for call in way.calls] == ["PUT"] * 3
    assert make(ministack.url).get(KEY) == b"x"


def only_first_put(verdict: Rule) -> Rule:
    turns = count()
    return lambda call: verdict(call) if call.method == "PUT" and next(turns) == 0 else "pass"


def test_a_put_whose_reply_is_lost_counts_as_done(ministack: Server, make: Make) -> None:
    make(ministack.url).ensure_bucket()
    with proxy(ministack.port, only_first_put(lambda _: "lose the reply")) as way:
        make(way.url, patience=Patience(1, 5, 3)).put(KEY, b"x", "image/png")
        assert [call.method for call in way.calls] == ["PUT", "PUT", "GET"]  # 412, then a look at the content
    assert make(ministack.url).get(KEY) == b"x"


def test_rival_conditional_writes_are_repeated(ministack: Server, make: Make) -> None:
    make(ministack.url).ensure_bucket()
    with proxy(ministack.port, only_first_put(lambda _: Reply(409, "ConditionalRequestConflict"))) as way:
        store = make(way.url)
        store.put(KEY, b"x", "image/png")
        with pytest.raises(Conflict):
            store.put(KEY, b"other", "image/png")
        assert all(call.headers["if-none-match"] == "*" for call in way.calls if call.method == "PUT")


def test_rivals_that_never_settle_are_an_outage(make: Make) -> None:
    with proxy(0, lambda _: Reply(409, "ConditionalRequestConflict")) as sick:
        fails(make(sick.url, patience=QUICK), CALLS["put"])
        assert len(sick.calls) == 4


def test_a_server_that_knows_no_conditions_is_asked_without(ministack: Server, make: Make) -> None:
    make(ministack.url).ensure_bucket()

    def rule(call: Call) -> Verdict:
        return Reply(501, "NotImplemented") if "if-none-match" in call.headers else "pass"

    with proxy(ministack.port, rule) as way:
        store = make(way.url)
        store.put(KEY, b"x", "image/png")
        store.put(reference_key(TENANT), b"y", "image/png")
        assert [("if-none-match" in call.headers) for call in way.calls] == [True, False, False]
    assert make(ministack.url).get(KEY) == b"x"


def test_a_server_without_delete_objects_is_asked_one_by_one(ministack: Server, make: Make) -> None:
    direct, statuses = make(ministack.url), [400, 405, 501]
    direct.ensure_bucket()
    with proxy(ministack.port, lambda call: Reply(statuses[-1], "No") if call.method == "POST" else "pass") as way:
        store = make(way.url)
        while statuses:
            for _ in range(3):
                direct.put(reference_key(TENANT), b"x", "image/png")
            assert store.delete_prefix(tenant_prefix(TENANT)) == 3
            assert [call.method for call in way.calls[-5:]] == ["GET", "POST", "DELETE", "DELETE", "DELETE"]
            assert list(direct.keys("t/")) == []
            statuses.pop()


def test_objects_that_the_server_keeps_are_reported(ministack: Server, make: Make) -> None:
    direct = make(ministack.url)
    direct.ensure_bucket()
    direct.put(KEY, b"x", "image/png")
    kept = b"<DeleteResult><Error><Key>k</Key><Code>InternalError</Code></Error></DeleteResult>"
    with proxy(ministack.port, lambda call: Reply(200, body=kept) if call.method == "POST" else "pass") as way:
        assert "1 objects" in fails(make(way.url), CALLS["delete_prefix"]).message


@pytest.mark.parametrize(("mode", "sent"), [("auto", False), ("when_required", False), ("when_supported", True)])
def test_checksums_follow_the_setting(ministack: Server, make: Make, mode: str, sent: bool) -> None:
    make(ministack.url).ensure_bucket()
    with proxy(ministack.port, lambda _: "pass") as way:
        store = make(way.url, S3_CHECKSUMS=mode)
        store.put(KEY, b"x", "image/png")
        assert store.get(KEY) == b"x"
        assert ("x-amz-checksum-crc32" in way.calls[0].headers) is sent


@pytest.mark.parametrize(
    "changes",
    [
        {"S3_ENDPOINT_URL": "not a url"},
        {"S3_PUBLIC_ENDPOINT_URL": "localhost:9000"},
        {"S3_REGION": "eu central"},
        {"S3_SECRET_ACCESS_KEY": ""},
    ],
)
def test_settings_that_cannot_work_are_said_at_once(make: Make, changes: dict[str, str]) -> None:
    with pytest.raises(StoreUnavailable):
        make("http://127.0.0.1:9000", **changes)
