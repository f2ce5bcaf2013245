"""The form of a campaign's specification: one model for files, for the API and for the published JSON Schema."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from fluxfarm.campaigns.placements import NAME
from fluxfarm.jobs import Lane
from fluxfarm.request import MAX_PROMPT_CHARACTERS, MAX_SEED

MAX_VARIANTS: Final = 1_000
CAMPAIGN_NAME: Final = r"^[a-z0-9][a-z0-9._-]{0,79}$"

Cell = str | int | float | bool | None
Word = Annotated[str, Field(min_length=1, max_length=200)]
Tag = Annotated[str, Field(min_length=1, max_length=64)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Rows(_Part):
    """The data, one way of four."""

    file: str | None = Field(None, description="A .csv or .jsonl file beside the specification; command line only.")
    csv: str | None = Field(None, description="CSV text with a header line.")
    jsonl: str | None = Field(None, description="One JSON object a line.")
    inline: list[dict[str, Any]] | None = Field(None, description="Objects, whose values are texts or numbers.")

    @model_validator(mode="after")
    def _one(self) -> Rows:
        if sum(value is not None for value in (self.file, self.csv, self.jsonl, self.inline)) != 1:
            raise ValueError("give the rows as one of file, csv, jsonl or a list")
        return self


def _rows(value: Any) -> Any:
    if isinstance(value, str):
        return {"file": value}
    return {"inline": value} if isinstance(value, list) else value


RowsField = Annotated[
    Rows | None, BeforeValidator(_rows, json_schema_input_type=Rows | str | list[dict[str, Any]] | None)
]


class Placement(_Part):
    """A size under a name."""

    name: str | None = Field(
        None, pattern=f"^{NAME.pattern}$", description="In file names; else the preset's or size's."
    )
    size: Word = Field(description="A preset's name, pixels (`1200x628`) or a ratio (`16:9`).")


def _placement(value: Any) -> Any:
    return {"size": value} if isinstance(value, str) else value


class Variants(_Part):
    """How many pictures of each, or their seeds."""

    count: int | None = Field(None, ge=1, le=MAX_VARIANTS, description="Seeds count on from `seed`.")
    seeds: list[Seed] | None = Field(None, min_length=1, max_length=MAX_VARIANTS)

    @model_validator(mode="after")
    def _one(self) -> Variants:
        if (self.count is None) == (self.seeds is None):
            raise ValueError("give either count or seeds")
        if self.seeds is not None and len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed stands twice; it would draw the same picture again")
        return self


def _variants(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return {"count": value}
    return {"seeds": value} if isinstance(value, list) else value


class Locale(_Part):
    """What differs in one language or market."""

    prompt: str | None = Field(None, max_length=MAX_PROMPT_CHARACTERS, description="Another template.")
    values: dict[Word, Cell] = Field(default_factory=dict, description="Values that replace the row's.")


def _locale(value: Any) -> Any:
    return {} if value is None else value


class Draft(_Part):
    """How the first look at everything is rendered; picked drafts become masters with the same seed."""

    steps: int | None = Field(None, ge=1, le=1000, description="Fewer denoising steps.")
    scale: float = Field(1.0, gt=0, le=1, description="Of each side: 0.5 draws a quarter of the pixels.")

    @model_validator(mode="after")
    def _something(self) -> Draft:
        if self.steps is None and self.scale == 1:
            raise ValueError("a draft needs fewer steps or a scale below 1")
        return self


class Spec(_Part):
    """A campaign: a template x rows x locales x axes x placements x variants."""

    name: str = Field(pattern=CAMPAIGN_NAME, description="Lower case; once for each tenant.")
    model: Word = Field(description="A slug or an alias; see /v1/models.")
    prompt: str = Field(
        min_length=1,
        max_length=MAX_PROMPT_CHARACTERS,
        description="A template: `{column}`; `{{` and `}}` are braces; `{column|lower}`, `upper`, `slug`.",
    )
    rows: RowsField = Field(None, description="The product feed; left out, there is one picture of each of the rest.")
    key: Word | None = Field(None, description="The column that names a row; else its number does.")
    defaults: dict[Word, Cell] = Field(default_factory=dict, description="Values of cells that are empty or missing.")
    locales: dict[
        Annotated[str, Field(pattern=f"^{NAME.pattern}$")],
        Annotated[Locale, BeforeValidator(_locale, json_schema_input_type=Locale | None)],
    ] = Field(default_factory=dict, description="Languages or markets; a column `title@de` is the title in `de`.")
    axes: dict[Word, Annotated[list[Cell], Field(min_length=1)]] = Field(
        default_factory=dict, description="Lists that are combined with everything else."
    )
    placements: list[Annotated[Placement, BeforeValidator(_placement, json_schema_input_type=Placement | str)]] = Field(
        default_factory=list, max_length=200, description="Left out: the model's own size."
    )
    variants: Annotated[Variants, BeforeValidator(_variants, json_schema_input_type=Variants | int | list[Seed])] = (
        Field(default_factory=lambda: Variants(count=1, seeds=None))
    )
    seed: Seed | None = Field(None, description="Of the first variant; else it follows from the name.")
    references: list[Word] = Field(
        default_factory=list, max_length=10, description="Templates of files, https URLs or ids: a logo, `{photo}`."
    )
    files: dict[Annotated[str, Field(min_length=1, max_length=400)], Annotated[str, Field(max_length=64)]] = Field(
        default_factory=dict, description="File names among the references, and the ids they were uploaded as."
    )
    naming: str | None = Field(
        None, min_length=1, max_length=400, description="Template of file names, `/` for folders."
    )
    megapixels: float | None = Field(None, gt=0, le=16, description="Area of placements that are ratios.")
    steps: int | None = Field(None, ge=1, le=1000)
    guidance: float | None = Field(None, ge=0, le=100)
    output_format: Literal["png", "jpeg", "webp", "avif"] | None = Field(None, description="webp when not said.")
    output_quality: int | None = Field(None, ge=0, le=100)
    draft: Draft | None = None
    lane: Annotated[Lane, Field(strict=False)] = Lane.BULK
    provider: Word = Field("auto", description="Who renders, as in `POST /v1/jobs`.")
    fallback: list[Word] | None = Field(
        None, max_length=16, description="Who renders when those before cannot, as in `POST /v1/jobs`; `[]`: nobody."
    )
    max_cost: Annotated[Decimal, Field(strict=False, max_digits=12, decimal_places=6)] | None = Field(
        None, ge=0, description="USD that one picture may cost at most; dearer providers are not asked."
    )
    budget: Annotated[Decimal, Field(strict=False, max_digits=12, decimal_places=6)] | None = Field(
        None, gt=0, description="USD that all jobs together may cost."
    )
    deadline: str | None = Field(None, max_length=40, description="RFC 3339 with a zone; jobs not started by then end.")
    webhook: str | None = Field(
        None,
        min_length=1,
        max_length=2048,
        description="An HTTPS URL, or the id of a webhook; told of the end of each job and of it all.",
    )
    webhook_each: bool = Field(True, description="`false`: the webhook is told of the campaign's end only.")
    tags: list[Tag] = Field(default_factory=list, max_length=20)
    review: bool = Field(False, description="The export takes approved pictures only.")
