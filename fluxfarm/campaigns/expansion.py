"""From a specification and its rows to every picture: counted first, then made, each mistake with its cell."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from fluxfarm.campaigns.assets import Asset, Maker
from fluxfarm.campaigns.layout import DRAFTS, OWN, Layout, lay_out
from fluxfarm.campaigns.rows import Issues, Table, read_rows
from fluxfarm.campaigns.source import invalid
from fluxfarm.campaigns.spec import Spec
from fluxfarm.errors import Issue

MAX_ASSETS: Final = 100_000  #: pictures of one campaign


@dataclass(frozen=True, slots=True)
class Expansion:
    """All pictures of a campaign."""

    layout: Layout
    assets: list[Asset]
    arithmetic: str

    @property
    def renders(self) -> list[Asset]:
        """Each picture once."""
        return [asset for asset in self.assets if asset.render == asset.n]

    @property
    def references(self) -> set[str]:
        """Every reference that any picture names."""
        return {text for asset in self.assets for text in asset.references}


def expand(spec: Spec, *, draft: bool | None = None, most: int = MAX_ASSETS) -> Expansion:
    """Every picture that the specification asks for, without a side effect.

    ``draft`` is whether drafts are meant; None: when the specification has a draft.

    Raises:
        InvalidCampaign: with the rows, columns and reasons; nothing is expanded beyond ``most`` pictures.
    """
    issues = Issues()
    drafts = spec.draft is not None if draft is None else draft
    layout = lay_out(spec, issues, draft=drafts)
    table = read_rows(spec.rows, issues)
    if layout is not None:
        _check_names(spec, layout, table, issues)
    _stop(issues)
    assert layout is not None
    count = layout.count(len(table.rows))
    arithmetic = layout.arithmetic(len(table.rows))
    if count > most:
        message = f"{arithmetic} pictures; a campaign has at most {most:,}. Take some rows, axes or variants away."
        raise invalid([Issue(message=message, param="axes" if spec.axes else "rows" if spec.rows else "variants")])
    maker = Maker(spec, layout, len(table.rows), DRAFTS if drafts else "", issues)
    assets = [asset for row in table.rows for asset in maker.row(row)]
    _stop(issues)
    return Expansion(layout, assets, arithmetic)


def _stop(issues: Issues) -> None:
    if issues:
        raise invalid(issues.kept, issues.total)


def _check_names(spec: Spec, layout: Layout, table: Table, issues: Issues) -> None:
    """Every placeholder must have a column, an axis, a default or a value in each locale."""
    columns = set(table.columns or ())
    for name in sorted(columns & set(OWN)):
        if name != "key" and any(name in template.names for _, template in layout.templates()):
            message = f"{{{name}}} is filled in by the campaign itself; rename the column {name!r}."
            issues.add(Issue(message=message, param="rows", row=0, field=name))
    if table.columns is None:
        return
    if spec.key is not None and spec.key not in columns:
        issues.add(Issue(message=f"the rows have no column {spec.key!r}{_nearest(spec.key, columns)}", param="key"))
    known = columns | set(OWN) | set(layout.axes) | set(layout.defaults)
    for param, template in layout.templates():
        for name in template.names:
            if name in known or _in_locales(name, param, layout, columns):
                continue
            message = f"there is no column {name!r} for the placeholder {{{name}}}{_nearest(name, known)}"
            issues.add(Issue(message=message, param=param, field=name))


def _in_locales(name: str, param: str, layout: Layout, columns: set[str]) -> bool:
    users = [one for one in layout.languages if one.param == param] or layout.languages
    return all(name in one.values or f"{name}@{one.name}" in columns for one in users)


def _nearest(name: str, known: set[str]) -> str:
    found = get_close_matches(name[:60], sorted(known), n=1)
    return f"; did you mean {found[0]!r}?" if found else "."
