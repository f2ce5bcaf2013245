"""``docs/api.md``, made from the API's own description: ``python -m tests.docs.api_reference`` writes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from api.main import create_app
from fluxfarm.settings import Settings
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "api.md"
HEAD = """# The API, call by call

Made from the OpenAPI description, which a running farm shows at `/openapi.json`. A call needs a key
with the scope that stands beside it, as `Authorization: Bearer ff_live_…`. Errors are problem+json with a `code`;
each dialect words them its own way. [compatibility.md](compatibility.md) says which clients of others work unchanged.
"""
NAMES = {"integer": "int", "boolean": "bool", "string": "text", "number": "number", "object": "object", "null": "null"}


def _kind(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    for many in ("anyOf", "oneOf", "allOf"):
        if many in schema:
            return " or ".join(dict.fromkeys(_kind(one) for one in schema[many] if one.get("type") != "null"))
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return NAMES.get(str(schema.get("type")), "anything")


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _calls(document: dict[str, Any]) -> Iterator[str]:
    by_tag: dict[str, list[str]] = {}
    for path, calls in document["paths"].items():
        for method, call in calls.items():
            security = call.get("security")
            scope = f"`{security[0]['bearer'][0]}`" if security else "none"
            told = call.get("description") or call.get("summary") or ""
            first = _cell(told.split("\n\n")[0])
            replies = ", ".join(sorted(call["responses"]))
            row = f"| `{method.upper()} {path}` | {first} | {scope} | {replies} |"
            by_tag.setdefault(call.get("tags", ["others"])[0], []).append(row)
    for tag, rows in sorted(by_tag.items()):
        yield f"\n## {tag[:1].upper()}{tag[1:]}\n\n| call | does | scope | replies |\n|---|---|---|---|"
        yield from rows


def _bodies(document: dict[str, Any]) -> Iterator[str]:
    schemas = document["components"]["schemas"]
    wanted: list[str] = []
    for calls in document["paths"].values():
        for call in calls.values():
            for content in call.get("requestBody", {}).get("content", {}).values():
                wanted += [_kind(content["schema"])] if "$ref" in content["schema"] else []
    yield "\n## What is sent\n\nFields without a star may be left out."
    done: set[str] = set()
    while wanted:
        name = wanted.pop(0)
        if name in done or not (fields := schemas.get(name, {}).get("properties")):
            continue
        done.add(name)
        yield f"\n### {name}\n\n| field | is | meaning |\n|---|---|---|"
        needed = schemas[name].get("required", ())
        for field, schema in fields.items():
            wanted += [one for one in schemas if f"/{one}'" in str(schema)]
            star = "*" if field in needed else ""
            yield f"| `{field}`{star} | {_cell(_kind(schema))} | {_cell(schema.get('description', ''))} |"


def page() -> str:
    """The whole page."""
    document = create_app(Settings()).openapi()
    return "\n".join([HEAD.rstrip(), *_calls(document), *_bodies(document)]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
