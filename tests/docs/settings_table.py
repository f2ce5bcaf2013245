"""The README's table of settings, made from ``Settings``: ``python -m tests.docs.settings_table`` writes it there."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from fluxfarm.settings import Settings
from tests.conftest import ROOT

README = ROOT / "README.md"
START, END = "<!-- settings -->\n", "\n## Guides"


def default_of(name: str) -> str:
    field = Settings.model_fields[name]
    if field.default is PydanticUndefined:
        return "the two small ones"
    value = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
    if isinstance(value, Path):
        return f"`{value}`"
    return "" if value in ("", None) else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def table() -> str:
    rows = ["| variable | default | what it sets |", "|---|---|---|"]
    rows += [
        f"| `{field.alias}` | {default_of(name)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(rows) + "\n"


def main() -> None:
    before, _, rest = README.read_text(encoding="utf-8").partition(START)
    README.write_text(f"{before}{START}\n{table()}{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
