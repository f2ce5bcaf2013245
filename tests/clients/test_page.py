from __future__ import annotations

from tests.clients.calls import PAGE, table


def test_the_page_lists_what_the_tests_call() -> None:
    assert table() in PAGE.read_text(encoding="utf-8"), "run python -m tests.clients.calls"
