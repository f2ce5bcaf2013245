"""The farm's own look at prompts and pictures: nothing, a note in the log, or the end of the job."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import structlog
from PIL import Image

from fluxfarm.denials import DenyList
from fluxfarm.errors import DatabaseUnavailable, Moderated
from fluxfarm.policies import SafetyMode
from fluxfarm.settings import Settings
from storage.database import Database
from storage.repository import attempts, policies
from storage.repository.policies import SafetyRules
from storage.repository.turns import Claim
from workers import metrics
from workers.pipeline_safety import Classifier

FRESH: Final = 10.0  #: seconds that a tenant's rules are remembered
SWITCH: Final = "disable_safety_checker"
OPPOSITE: Final = "enable_safety_checker"  #: fal's name for it

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Rules:
    mode: str
    deny: DenyList
    may_disable: bool


class Safety:
    """The checks of one worker; safe to share between its threads."""

    def __init__(self, settings: Settings, database: Database) -> None:
        """Reads the farm's deny list; the classifier is loaded with its first picture.

        Raises:
            InvalidField: the deny list cannot be read, or has a line that is none.
        """
        self._mode: SafetyMode = settings.safety
        self._database = database
        path = settings.deny_file
        self._deny = DenyList() if path is None else DenyList.of_file(path, "FLUXFARM_DENY_FILE")
        self._classifier = None if settings.classifier is None else Classifier(settings)
        self._known: dict[UUID, tuple[float, _Rules]] = {}

    def check_prompt(self, claim: Claim) -> None:
        """Look at the prompt as it is about to be drawn.

        Raises:
            Moderated: it holds a denied word, and the mode is ``block``.
            DatabaseUnavailable: the tenant's rules cannot be read.
        """
        rules = self._rules(claim)
        if rules.mode == "off" or self._is_off(claim, rules):
            return
        found = rules.deny.find(claim.request.prompt)
        if found is not None:
            self._act(claim, rules, "prompt", f"entry {found}", "The prompt holds what this farm does not draw.")

    @property
    def sees_pictures(self) -> bool:
        """Whether there is a classifier at all."""
        return self._classifier is not None

    def check_picture(self, claim: Claim, picture: Image.Image | bytes) -> None:
        """Look at a picture before it is given out.

        Raises:
            Moderated: the classifier finds an unwanted label in it, and the mode is ``block``.
            ModelUnavailable: the classifier cannot be loaded; nothing is given out unseen.
        """
        if self._classifier is None:
            return
        rules = self._rules(claim)
        if rules.mode == "off" or self._is_off(claim, rules):
            return
        if isinstance(picture, bytes):
            picture = Image.open(io.BytesIO(picture))
        found = self._classifier.unwanted(picture)
        if found is not None:
            label, score = found
            message = f"A picture was withheld: the farm's classifier finds {label} in it ({score:.2f})."
            self._act(claim, rules, "picture", label, message)

    def _rules(self, claim: Claim) -> _Rules:
        kept = self._known.get(claim.tenant_id)
        if kept is not None and time.monotonic() - kept[0] < FRESH:
            return kept[1]
        try:
            with self._database.transaction() as session:
                found = policies.safety(session, claim.tenant_id)
        except DatabaseUnavailable:
            if kept is None:
                raise
            return kept[1]
        rules = self._merged(found)
        self._known[claim.tenant_id] = (time.monotonic(), rules)
        return rules

    def _merged(self, found: SafetyRules) -> _Rules:
        return _Rules(found.mode or self._mode, self._deny + DenyList(found.deny), found.may_disable)

    def _is_off(self, claim: Claim, rules: _Rules) -> bool:
        """Whether the job switches the checks off, which its tenant must be allowed to."""
        name = _switch(claim.request.options)
        if name is None or not rules.may_disable:
            return False
        if name in claim.request.ignored:
            with self._database.transaction() as session:
                attempts.heed(session, claim, name)
        return True

    def _act(self, claim: Claim, rules: _Rules, what: str, rule: str, message: str) -> None:
        metrics.FLAGGED.labels(what, rules.mode).inc()
        log.warning("safety", job=str(claim.uuid), attempt=claim.attempt, what=what, rule=rule, mode=rules.mode)
        if rules.mode == "block":
            raise Moderated(message)


def _switch(options: Mapping[str, Any]) -> str | None:
    """The name of the option that asks for no checks."""
    if options.get(SWITCH) is True:
        return SWITCH
    return OPPOSITE if options.get(OPPOSITE) is False else None
