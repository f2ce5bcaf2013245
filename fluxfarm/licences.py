"""Who may render what: weights for non-commercial use, and the models that a tenant is held to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fluxfarm.catalog import find_model
from fluxfarm.errors import LicenceForbidden, ModelForbidden


@dataclass(frozen=True, slots=True)
class Permit:
    """What a tenant may render; ``models`` None is all."""

    commercial: bool = False  #: what it makes is for business: weights must allow that
    models: frozenset[str] | None = None

    def allows(self, slug: str) -> bool:
        """Whether the tenant may render the model."""
        return self._is_listed(slug) and (not self.commercial or find_model(slug).commercial)

    def check(self, slug: str, offered: Iterable[str]) -> None:
        """Refuse a model that the tenant may not render, and name one that it may out of those ``offered`` here.

        Raises:
            ModelForbidden: it is not on the tenant's list.
            LicenceForbidden: its weights are for non-commercial use, and the tenant is a commercial one.
        """
        if self.allows(slug):
            return
        other = next((one for one in offered if self.allows(one)), None)
        instead = f"; {other} is allowed." if other is not None else "; this farm serves none that is allowed."
        if not self._is_listed(slug):
            raise ModelForbidden(f"{slug} is not among the models of this tenant{instead}", param="model")
        licence = find_model(slug).licence
        message = f"{slug} is under the {licence}, and this tenant renders for commercial use{instead}"
        raise LicenceForbidden(message, param="model")

    def _is_listed(self, slug: str) -> bool:
        return self.models is None or slug in self.models
