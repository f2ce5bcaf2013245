"""The settings that say what the farm keeps and what it draws, where a tenant has no rules of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

SafetyMode = Literal["off", "log", "block"]
#: a path, or none where the variable is empty, as a Compose file passes one on that nobody has set
PerhapsPath = Annotated[Path | None, BeforeValidator(lambda value: None if value == "" else value)]


class Policies(BaseSettings):
    """A part of ``Settings``."""

    model_config = SettingsConfigDict(populate_by_name=True, extra="ignore", frozen=True, hide_input_in_errors=True)

    # --- how long things are kept --------------------------------------------------------------------------------
    prompt_days: int = Field(
        30,
        alias="FLUXFARM_PROMPT_DAYS",
        ge=0,
        le=36_500,
        description=(
            "Days after a job's end that its prompt is kept, where the tenant has no number of its own, as with the "
            "next three; 0: until it is erased."
        ),
    )
    reference_hours: int = Field(
        24,
        alias="FLUXFARM_REFERENCE_HOURS",
        ge=0,
        le=876_000,
        description=(
            "Hours that reference pictures are kept after their upload or the end of the job that they came with; "
            "those that an open job or a campaign needs stay. 0: until erased."
        ),
    )
    result_days: int = Field(
        0,
        alias="FLUXFARM_RESULT_DAYS",
        ge=0,
        le=36_500,
        description="Days after a job's end that its pictures are kept; 0: until erased.",
    )
    record_days: int = Field(
        0,
        alias="FLUXFARM_RECORD_DAYS",
        ge=0,
        le=36_500,
        description="Days after a job's end that its record is kept; the ledger keeps the amounts. 0: until erased.",
    )

    # --- what is drawn -------------------------------------------------------------------------------------------
    safety: SafetyMode = Field(
        "off",
        alias="FLUXFARM_SAFETY",
        description=(
            "What becomes of prompts and pictures that the checks below find: `off` looks at none, `log` only notes "
            "it, `block` ends the job as `moderated`; where the tenant has no mode of its own."
        ),
    )
    deny_file: PerhapsPath = Field(
        None,
        alias="FLUXFARM_DENY_FILE",
        description="File of words that no prompt may hold, one a line; `/…/` is a regular expression, `#` a comment.",
    )
    classifier: PerhapsPath = Field(
        None,
        alias="FLUXFARM_CLASSIFIER",
        description=(
            "Folder of an image classifier in the form of transformers (`config.json`, `model.safetensors`); every "
            "finished picture is shown to it."
        ),
    )
    classifier_labels: str = Field(
        "nsfw",
        alias="FLUXFARM_CLASSIFIER_LABELS",
        description="Its labels that are not wanted, separated by commas.",
    )
    classifier_threshold: float = Field(
        0.5, alias="FLUXFARM_CLASSIFIER_THRESHOLD", gt=0, le=1, description="Score from which such a label counts."
    )
