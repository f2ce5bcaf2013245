"""What a plan warns of: the licence, what a provider cannot take, what is drawn otherwise than said; with the rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from api.campaigns import Prepared, by_shape
from fluxfarm.campaigns.assets import Asset
from fluxfarm.campaigns.record import Eta, RowWarning
from fluxfarm.catalog import find_model
from fluxfarm.offers import Behaviour, Offer
from fluxfarm.remotes import LOCAL
from fluxfarm.sizes import Size

SHOWN: Final = 10  #: rows that a warning names
CHARACTERS: Final = 4  #: of a token of English, in the middle
#: what the specification calls a parameter, and what the offers do
NAMES: Final = {
    "steps": "num_inference_steps",
    "guidance": "guidance",
    "output_format": "output_format",
    "output_quality": "output_quality",
}


def of_campaign(prepared: Prepared, eta: Eta | None) -> list[str]:
    """What is to be said of the whole."""
    return [*_duplicates(prepared), *_deadline(prepared, eta), *_format(prepared)]


def of_rows(prepared: Prepared) -> list[RowWarning]:
    """What is to be said of some rows, the rows of each warning counted."""
    found: dict[tuple[str, str], dict[int, None]] = {}
    for param, message, assets in (*_licence(prepared), *_parameters(prepared), *_prompts(prepared)):
        rows = found.setdefault((param, message), {})
        rows.update((asset.row, None) for asset in assets)
    return [
        RowWarning(param=param, message=message, rows=sorted(rows)[:SHOWN], total=len(rows))
        for (param, message), rows in found.items()
    ]


Said = Iterator[tuple[str, str, Iterable[Asset]]]


def _licence(prepared: Prepared) -> Said:
    profile = prepared.expansion.layout.profile
    if not profile.commercial:
        message = f"{profile.name} is under the {profile.licence}: its pictures may not be sold or used in advertising."
        yield "model", message, prepared.expansion.assets


def _parameters(prepared: Prepared) -> Said:
    """What becomes of each shape where it is rendered."""
    for shape, assets in by_shape(prepared.expansion.assets).items():
        way = prepared.routes[shape]
        chosen = None if way.plan is None else way.plan.chosen
        if chosen is None or chosen.provider == LOCAL:
            continue
        offer = prepared.around.remotes[chosen.provider].offer(chosen.model)
        assert offer is not None
        for param, message in (*_ignored(prepared, offer), *_drawn(offer, shape[0])):
            yield param, message, assets


def _ignored(prepared: Prepared, offer: Offer) -> Iterator[tuple[str, str]]:
    said: Mapping[str, object] = prepared.spec.model_dump(include=set(NAMES), exclude_none=True)
    for name in said:
        if offer.parameters[NAMES[name]].behaviour is Behaviour.IGNORED:
            yield name, f"{offer.provider} takes no {name}; it draws with its own."
    if offer.model != prepared.expansion.layout.profile.slug:
        yield "model", f"{offer.provider} draws it with {find_model(offer.model).name}."


def _drawn(offer: Offer, size: Size) -> Iterator[tuple[str, str]]:
    drawn = offer.drawn_size(size)
    if drawn is not None and drawn != size.rendered:
        yield "placements", f"{offer.provider} draws {size} as {drawn}; the farm scales and crops it."


def _prompts(prepared: Prepared) -> Said:
    most = prepared.expansion.layout.profile.max_sequence_length
    long = [asset for asset in prepared.expansion.assets if len(asset.prompt) > most * CHARACTERS]
    if long:
        yield (
            "prompt",
            f"The prompt may be longer than the {most} tokens that the model reads; it would fail.",
            long,
        )


def _duplicates(prepared: Prepared) -> Iterator[str]:
    expansion = prepared.expansion
    double = len(expansion.assets) - len(expansion.renders)
    if double:
        twin = next(asset for asset in expansion.assets if asset.render != asset.n)
        first = expansion.assets[twin.render]
        yield (
            f"{double:,} files are the same picture as another one and are rendered once; the first is {twin.name!r} "
            f"(row {twin.row}), which is {first.name!r} (row {first.row})."
        )


def _deadline(prepared: Prepared, eta: Eta | None) -> Iterator[str]:
    if eta is not None and prepared.deadline is not None and eta.p90 > prepared.deadline:
        sure = "will not" if eta.p50 > prepared.deadline else "may not"
        yield f"It {sure} be done by {prepared.deadline:%Y-%m-%d %H:%M} UTC; jobs that have not begun then end."


def _format(prepared: Prepared) -> Iterator[str]:
    if prepared.spec.output_quality is not None and prepared.expansion.layout.output_format == "png":
        yield "output_quality changes nothing with png."
