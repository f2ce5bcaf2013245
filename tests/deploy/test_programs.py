"""A test that cannot run for want of a program says so: a failure where CI must have it, a skip elsewhere."""

from __future__ import annotations

import pytest

from tests.programs import needed


@pytest.mark.parametrize(
    ("ci", "ends"), [("true", pytest.fail.Exception), ("1", pytest.fail.Exception), ("", pytest.skip.Exception)]
)
def test_a_missing_program_is_a_failure_under_ci(
    monkeypatch: pytest.MonkeyPatch, ci: str, ends: type[BaseException]
) -> None:
    monkeypatch.setenv("CI", ci)
    with pytest.raises(ends, match=r"no-such-program is not here; it comes with Debian's nothing"):
        needed("no-such-program", "Debian's nothing")


def test_a_program_that_is_here_is_found() -> None:
    assert needed("sh", "every system").endswith("/sh")
