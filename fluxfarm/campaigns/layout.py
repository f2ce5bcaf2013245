"""What a specification says before its rows are looked at: templates, sizes, seeds, names, and how many pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Final, cast

from fluxfarm.campaigns.placements import NAME, PRESETS, Place, name_of
from fluxfarm.campaigns.rows import Issues, cell_text
from fluxfarm.campaigns.spec import Draft, Spec
from fluxfarm.campaigns.templates import Template, TemplateError
from fluxfarm.catalog import ModelProfile, find_model
from fluxfarm.errors import BadRequest, Issue, ModelNotFound
from fluxfarm.request import MAX_SEED, OutputFormat
from fluxfarm.sizes import Size, parse_size

#: placeholders that the campaign itself fills in
OWN: Final = ("row", "key", "locale", "placement", "variant", "seed", "width", "height")
DRAFTS: Final = "drafts/"  #: folder of the drafts' names


@dataclass(frozen=True, slots=True)
class Language:
    """One locale; the empty name is a campaign without locales."""

    name: str
    prompt: Template
    param: str  #: where the template stands
    values: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Everything that does not depend on a row."""

    profile: ModelProfile
    steps: int
    guidance: float
    output_format: OutputFormat
    languages: tuple[Language, ...]
    axes: dict[str, tuple[str, ...]]
    places: tuple[Place, ...]
    seeds: tuple[int, ...]
    naming: Template
    references: tuple[Template, ...]
    defaults: dict[str, str]

    @property
    def extension(self) -> str:
        """Of the files."""
        return "jpg" if self.output_format == "jpeg" else self.output_format

    def factors(self, rows: int) -> list[tuple[int, str]]:
        """What is multiplied, in words."""
        found = [(rows, "rows"), (len(self.languages), "locales")]
        found += [(len(values), name) for name, values in self.axes.items()]
        found += [(len(self.places), "placements"), (len(self.seeds), "variants")]
        return found

    def count(self, rows: int) -> int:
        """How many pictures, duplicates counted."""
        return prod(number for number, _ in self.factors(rows))

    def arithmetic(self, rows: int) -> str:
        """``40 rows x 2 locales x 3 placements = 240``."""
        told = [f"{number:,} {word}" for number, word in self.factors(rows) if number != 1]
        return f"{' x '.join(told) or '1 row'} = {self.count(rows):,}"

    def templates(self) -> list[tuple[str, Template]]:
        """Every template with its place in the specification."""
        found = [(language.param, language.prompt) for language in self.languages]
        found += [(f"references.{index}", one) for index, one in enumerate(self.references)]
        return [*dict(found).items(), ("naming", self.naming)]


def lay_out(spec: Spec, issues: Issues, *, draft: bool) -> Layout | None:
    """The layout of the drafts, or of the masters; None: ``issues`` says why not."""
    try:
        profile = find_model(spec.model)
    except ModelNotFound as error:
        issues.add(Issue(message=error.message, param="model"))
        return None
    smaller = spec.draft if draft else None
    prompt = _template(spec.prompt, "prompt", issues)
    languages = [
        Language(
            name,
            prompt if one.prompt is None else _template(one.prompt, f"locales.{name}.prompt", issues),
            "prompt" if one.prompt is None else f"locales.{name}.prompt",
            {key: cell_text(value) or "" for key, value in one.values.items()},
        )
        for name, one in spec.locales.items()
    ]
    layout = Layout(
        profile=profile,
        steps=_steps(spec, smaller, profile, issues),
        guidance=_within(spec.guidance, "guidance", profile, issues),
        output_format=spec.output_format or cast("OutputFormat", profile.default_format),
        languages=tuple(languages) or (Language("", prompt, "prompt", {}),),
        axes={name: _axis(name, values, issues) for name, values in spec.axes.items()},
        places=_places(spec, smaller, profile, issues),
        seeds=seeds_of(spec),
        naming=_template(spec.naming or _naming(spec), "naming", issues),
        references=tuple(_template(one, f"references.{index}", issues) for index, one in enumerate(spec.references)),
        defaults={name: cell_text(value) or "" for name, value in spec.defaults.items()},
    )
    if len(spec.references) > profile.max_references:
        message = f"{profile.slug} takes at most {profile.max_references} references."
        issues.add(Issue(message=message, param="references"))
    return None if issues else layout


def seeds_of(spec: Spec) -> tuple[int, ...]:
    """The seed of each variant: those that are said, or a row of numbers that follows from the campaign's name."""
    if spec.variants.seeds is not None:
        return tuple(spec.variants.seeds)
    digest = hashlib.sha256(f"fluxfarm campaign {spec.name}".encode()).digest()
    first = spec.seed if spec.seed is not None else int.from_bytes(digest[:4], "big")
    return tuple((first + index) % (MAX_SEED + 1) for index in range(spec.variants.count or 1))


def place_of(text: str, name: str | None, spec: Spec, profile: ModelProfile) -> Place:
    """The placement of a preset, of pixels or of a ratio.

    Raises:
        InvalidSize: none of the three, or nothing that the model draws.
    """
    preset = PRESETS.get(text.strip().lower())
    area = spec.megapixels or profile.default_size.megapixels
    size = preset if preset is not None else parse_size(text, area)
    called = name or (text.strip().lower() if preset is not None else name_of(text))
    return Place(called, profile.sizes.check(size, profile.slug))


def smaller_place(place: Place, draft: Draft | None, profile: ModelProfile) -> Place:
    """The placement as a draft of it is drawn, no side below what the model takes."""
    if draft is None or draft.scale == 1:
        return place
    shorter = min(place.size.width, place.size.height)
    scale = min(1.0, max(draft.scale, profile.sizes.min_side / shorter))
    size = Size(round(place.size.width * scale), round(place.size.height * scale))
    return Place(place.name, size)


def _template(text: str, param: str, issues: Issues) -> Template:
    try:
        return Template.parse(text)
    except TemplateError as error:
        issues.add(Issue(message=f"{error}.", param=param))
        return Template(())


def _naming(spec: Spec) -> str:
    parts = ["{key|slug}", *(["{locale}"] if spec.locales else []), *(f"{{{name}|slug}}" for name in spec.axes)]
    parts += ["{placement}"] if len(spec.placements) > 1 else []
    parts += ["v{variant}"] if len(seeds_of(spec)) > 1 else []
    return "-".join(parts)


def _axis(name: str, values: Sequence[object], issues: Issues) -> tuple[str, ...]:
    texts = tuple(cell_text(value) or "" for value in values)
    if name in OWN:
        issues.add(
            Issue(message=f"{{{name}}} is filled in by the campaign itself; rename the axis.", param=f"axes.{name}")
        )
    if len(set(texts)) < len(texts):
        issues.add(Issue(message="a value stands twice.", param=f"axes.{name}"))
    return texts


def _within(value: float | None, name: str, profile: ModelProfile, issues: Issues) -> float:
    limits = profile.guidance if name == "guidance" else profile.steps
    try:
        return limits.check(value, name, profile.slug)
    except BadRequest as error:
        issues.add(Issue(message=error.message, param=name))
        return limits.default


def _steps(spec: Spec, draft: Draft | None, profile: ModelProfile, issues: Issues) -> int:
    full = int(_within(spec.steps, "steps", profile, issues))
    if draft is None or draft.steps is None:
        return full
    try:
        return int(profile.steps.check(draft.steps, "steps", profile.slug))
    except BadRequest as error:
        issues.add(Issue(message=error.message, param="draft.steps"))
        return full


def _places(spec: Spec, draft: Draft | None, profile: ModelProfile, issues: Issues) -> tuple[Place, ...]:
    found: dict[str, Place] = {}
    for index, one in enumerate(spec.placements):
        param = f"placements.{index}"
        try:
            place = place_of(one.size, one.name, spec, profile)
        except BadRequest as error:
            hint = "" if NAME.fullmatch(one.size) is None else " The presets are in the guide of campaigns."
            issues.add(Issue(message=f"{error.message}{hint}", param=param))
            continue
        if place.name in found:
            issues.add(Issue(message=f"two placements are called {place.name!r}; give one a name.", param=param))
        found[place.name] = smaller_place(place, draft, profile)
    if not spec.placements:
        found["default"] = smaller_place(Place("default", profile.default_size), draft, profile)
    return tuple(found.values())
