"""``python3 -m fluxfarm.dotenv [FOLDER]``: the ``.env`` that docker compose needs, with fresh secrets.

``FOLDER`` holds FLUX.2 [klein] 4B: then the file asks for the GPU worker, without it for the small models on the CPU. A
file that is there is never touched: its secrets open the database. Only the standard library is needed.
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path
from typing import Final

PLACE: Final = Path(".env")
SECRETS: Final = (
    "POSTGRES_PASSWORD",
    "VALKEY_PASSWORD",
    "S3_SECRET_ACCESS_KEY",
    "FLUXFARM_SECRET_KEY",
    "FLUXFARM_LINK_SECRET",
    "FLOWER_PASSWORD",
    "GRAFANA_PASSWORD",
)


def text(weights: Path | None) -> str:
    """The lines of the file; ``weights`` is the folder of klein-4B on this machine."""
    lines = [f"{name}={secrets.token_hex(24)}" for name in SECRETS]
    if weights is None:
        lines.append("COMPOSE_PROFILES=cpu")
    else:
        lines += [
            "COMPOSE_PROFILES=gpu",
            f"MODELS_FOLDER={weights.resolve().parent}",
            f"FLUXFARM_MODELS=black-forest-labs/flux-2-klein-4b=/models/{weights.resolve().name}",
        ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Write the file, readable by its owner alone; 1 and a sentence when that cannot be."""
    weights = Path(arguments[0]) if arguments and arguments[0] else None
    if weights is not None and not (weights / "model_index.json").is_file():
        sys.stderr.write(f"{weights} holds no model_index.json: give the folder of FLUX.2-klein-4B's weights.\n")
        return 1
    try:
        handle = os.open(PLACE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        sys.stderr.write(f"{PLACE} is there already and holds the secrets of a farm; it was not changed.\n")
        return 1
    with os.fdopen(handle, "w") as file:
        file.write(text(weights))
    sys.stdout.write(
        f"{PLACE} written. Next: docker compose up -d, then docker compose run --rm bootstrap for a key.\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
