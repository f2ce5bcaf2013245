"""Where weights come from: a folder, a hub id with its commit, or built here."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluxfarm.errors import InvalidField
from fluxfarm.sources import ModelSource, parse_source, parse_sources

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("fluxfarm/flux-2-small", ModelSource("fluxfarm/flux-2-small")),
        (" slug = ", ModelSource("slug")),
        ("slug=/weights/dev", ModelSource("slug", folder=Path("/weights/dev"))),
        ("slug = ./dev", ModelSource("slug", folder=Path("dev"))),
        ("slug=../dev", ModelSource("slug", folder=Path("../dev"))),
        (f"slug=owner/Name.2-x@{COMMIT}", ModelSource("slug", hub_id="owner/Name.2-x", revision=COMMIT)),
        ("slug=/odd=name", ModelSource("slug", folder=Path("/odd=name"))),
    ],
)
def test_each_form_is_read(text: str, source: ModelSource) -> None:
    assert parse_source(text) == source
    assert source.is_built_here == (source.folder is None and source.hub_id is None)


def test_the_home_folder_is_known() -> None:
    assert parse_source("slug=~/weights").folder == Path("~/weights").expanduser()


@pytest.mark.parametrize(
    "place",
    [
        "owner/name",
        "owner/name@main",
        f"owner/name@{COMMIT[:-1]}",
        f"owner/name@{COMMIT}0",
        f"owner/name@{COMMIT.upper()}",
        f"name@{COMMIT}",
        f"a/b/c@{COMMIT}",
        "weights",
        "https://hub.example/owner/name",
    ],
)
def test_what_could_change_under_a_running_farm_is_refused(place: str) -> None:
    with pytest.raises(InvalidField, match="40-digit commit") as caught:
        parse_source(f"slug={place}")
    assert caught.value.param == "FLUXFARM_MODELS"


def test_a_list_is_split_at_commas_and_may_be_empty() -> None:
    assert [source.slug for source in parse_sources(" a, b=/x ,,c,")] == ["a", "b", "c"]
    assert parse_sources("") == parse_sources(" , ") == ()
