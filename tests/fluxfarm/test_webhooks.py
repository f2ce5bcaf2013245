from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import pytest

from fluxfarm.errors import ForbiddenUrl
from fluxfarm.webhooks import OUTLET, SCHEDULE, check_addresses, delay, delivered, endpoint_url, job_data, pause

NOON = datetime(2026, 3, 27, 12, 0, tzinfo=UTC)


def test_ten_attempts_take_three_days_and_three_hours() -> None:
    waits = [delay(tries, 0.5) for tries in range(11)]
    assert waits[:-1] == [0, 5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]
    assert waits[-1] is None
    assert sum(SCHEDULE) == 75 * 3600 + 35 * 60 + 5


@pytest.mark.parametrize(("chance", "share"), [(0.0, 0.9), (0.25, 0.95), (1.0, 1.1)])
def test_a_delay_is_spread_by_a_tenth(chance: float, share: float) -> None:
    assert delay(4, chance) == pytest.approx(7200 * share)
    assert delay(0, chance) == 0


@pytest.mark.parametrize(
    ("status", "header", "seconds"),
    [
        (429, "120", 120),
        (503, " 7 ", 7),
        (502, None, 5),
        (504, "0", 5),
        (429, "-3", 5),
        (429, "soon", 5),
        (429, "1.5", 5),
        (429, "9" * 400, 5),
        (429, "99999999999", 86_400),
        (503, "Fri, 27 Mar 2026 12:02:00 GMT", 120),
        (503, "Fri, 27 Mar 2026 11:00:00 GMT", 5),
        (503, "Fri, 99 Mar 2026 11:00:00 GMT", 5),
        (500, "120", 0),
        (404, None, 0),
    ],
)
def test_what_a_receiver_asks_for(status: int, header: str | None, seconds: float) -> None:
    assert pause(status, header, NOON) == seconds


@pytest.mark.parametrize(("status", "has_it"), [(200, True), (204, True), (299, True), (199, False), (300, False)])
def test_only_2xx_is_a_success(status: int, has_it: bool) -> None:
    assert delivered(status) is has_it


@pytest.mark.parametrize(
    "url",
    [
        "http://shop.example.com/hook",
        "ftp://shop.example.com/",
        "https://user:secret@shop.example.com/",
        "https://shop.example.com:8443/",
        "https://localhost/",
        "https://db.internal/",
        "https://127.0.0.1/",
        "https://2130706433/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://169.254.169.254/latest",
        "https://[64:ff9b::a9fe:a9fe]/",
        "https://shop/",
        "shop.example.com/hook",
        "",
        "https://shop.example.com/" + "a" * 2000,
        "https://shop.example.com/" + "ü" * 400,
    ],
)
def test_urls_that_are_refused_by_their_text(url: str) -> None:
    with pytest.raises(ForbiddenUrl):
        endpoint_url(url)


def test_one_spelling_of_a_url() -> None:
    found = {
        endpoint_url(text)
        for text in (
            "https://Shop.example.com:443/a?b=1#c",
            "HTTPS://shop.example.com/a?b=1",
            "https://shop.example.com/a?b=1",
        )
    }
    assert found == {"https://shop.example.com/a?b=1"}


def test_a_private_address_is_refused_and_an_unknown_name_is_not() -> None:
    def inside(_host: str, _port: int) -> list[str]:
        return ["93.184.215.14", "10.0.0.1"]

    def unknown(_host: str, _port: int) -> list[str]:
        raise OSError

    url = "https://shop.example.com/hook"
    with pytest.raises(ForbiddenUrl, match="public Internet"):
        check_addresses(url, type(OUTLET)(1, 1, resolver=inside))
    check_addresses(url, type(OUTLET)(1, 1, resolver=unknown))
    check_addresses(url, type(OUTLET)(1, 1, resolver=lambda _host, _port: ["93.184.215.14"]))


def test_data_says_what_is_known_and_no_more() -> None:
    uuid = uuid4()
    assert job_data("job.canceled", uuid, "m", "", None, None) == {
        "uuid": str(uuid),
        "status": "CANCELED",
        "model": "m",
    }
