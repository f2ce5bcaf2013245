"""The tables of the providers' page, made from the offers; ``python -m tests.docs.providers_table`` writes them."""

from __future__ import annotations

from typing import Final

from fluxfarm.jobs import JobType
from fluxfarm.offers import KINDS, OFFERS, Offer, openai_offers
from fluxfarm.offers.treatments import SIZE_NAMES
from fluxfarm.request import RenderRequest
from fluxfarm.sizes import MEGAPIXEL, Size
from tests.conftest import ROOT

PAGE: Final = ROOT / "docs" / "providers.md"
MARKS: Final = ("<!-- offers -->\n", "<!-- treatments -->\n", "<!-- end -->\n")
ONE: Final = Size(1024, 1024)
EVERY: Final = (
    *OFFERS,
    *(offer for kind, habits in KINDS.items() if habits.models for offer in openai_offers(kind, kind)),
)


def _price(offer: Offer, references: int) -> str:
    request = RenderRequest(
        type=JobType.IMAGE_EDITOR if references else JobType.IMAGE_GENERATOR,
        model=offer.model,
        prompt="-",
        width=ONE.width,
        height=ONE.height,
        seeds=(0,),
        steps=28,
        guidance=4.0,
        output_format="png",
        output_quality=80,
        references=("ref_0",) * references,
    )
    told = f"${offer.price(request, (ONE,) * references).normalize():f}"
    return f"{told} (estimate)" if offer.price_source.startswith("estimate") else told


def _size(offer: Offer) -> str:
    if offer.ratios:
        return f"{', '.join(offer.ratios)} at {', '.join(offer.areas)} MP"
    limits = offer.sizes
    return (
        f"{limits.min_side} to {limits.max_side}, in steps of {offer.multiple}, {limits.max_pixels / MEGAPIXEL:.3g} MP"
    )


def offers() -> str:
    rows = [
        "| provider | model | size | references | 1 MP, 28 steps | with one reference |",
        "|---|---|---|---|---|---|",
    ]
    rows += [
        f"| {offer.provider} | {offer.model.rpartition('/')[2]} | {_size(offer)} | {offer.max_references} "
        f"| {_price(offer, 0)} | {_price(offer, 1)} |"
        for offer in EVERY
    ]
    return "\n".join(rows) + "\n"


def treatments() -> str:
    """For one model of each provider: [dev], or [pro] where there is no [dev]."""
    shown = {offer.provider: offer for offer in reversed(EVERY) if offer.model.endswith(("dev", "pro"))}
    shown |= {offer.provider: offer for offer in EVERY if offer.model.endswith("flux-2-dev")}
    columns = [shown[name] for name in dict.fromkeys(offer.provider for offer in EVERY)]
    head = "".join(f" {offer.provider} {offer.model.rpartition('-')[2]} |" for offer in columns)
    rows = [f"| parameter |{head}", "|---|" + "---|" * len(columns)]
    for name in columns[0].parameters:
        if name in SIZE_NAMES[1:] or name == "steps":
            continue
        cells = [offer.parameters[name] for offer in columns]
        told = "".join(f" {one.behaviour}{f' `{one.target}`' if one.target else ''} |" for one in cells)
        rows.append(f"| `{name}` |{told}")
    return "\n".join(rows) + "\n"


def write(text: str) -> str:
    """The page with its tables made anew."""
    before, _, rest = text.partition(MARKS[0])
    between, _, rest = rest.partition(MARKS[1])
    words = between.partition(MARKS[2])[2]
    after = rest.partition(MARKS[2])[2]
    first = f"{MARKS[0]}\n{offers()}\n{MARKS[2]}"
    return f"{before}{first}{words}{MARKS[1]}\n{treatments()}\n{MARKS[2]}{after}"


def main() -> None:
    PAGE.write_text(write(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
