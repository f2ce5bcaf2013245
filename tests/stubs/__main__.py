"""All stand-ins at once, to try a farm by hand: prints the settings that point a farm at them, and serves."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from contextlib import ExitStack
from typing import Final

from fluxfarm.offers import KINDS
from tests.stubs import STUBS
from tests.stubs.cloudflare import ACCOUNT
from tests.stubs.hooks import REPLICATE_SECRET
from tests.stubs.server import KEY, serving

FIRST_PORT: Final = 8801


def main() -> None:
    """Serve on loopback until a signal comes."""
    parser = argparse.ArgumentParser(prog="python -m tests.stubs", description=__doc__)
    parser.add_argument("--port", type=int, default=FIRST_PORT, help="of the first; the others follow (0: any free)")
    parser.add_argument("--latency", type=float, default=1.0, help="seconds from a call to its picture")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with ExitStack() as stack:
        urls = {}
        for index, (name, make) in enumerate(STUBS.items()):
            stub = make()
            stub.latency = chosen.latency
            urls[name] = stack.enter_context(serving(stub, chosen.port and chosen.port + index))
        for line in settings(urls):
            print(line, flush=True)  # noqa: T201 - this is what it is for
        try:
            signal.pause()
        except KeyboardInterrupt:
            os.write(2, b"\n")


def settings(urls: dict[str, str]) -> list[str]:
    """Shell lines for a farm that uses them all."""
    lines = []
    for name in ("fal", "replicate", "bfl", "cloudflare", "onemin"):
        lines += [
            f"export FLUXFARM_{name.upper()}_URL={urls[name]}",
            f"export FLUXFARM_{name.upper()}_KEY={KEY}",
        ]
    named = [f"{kind}={urls[kind]}/v1={KEY}" for kind in KINDS if kind != "openai"]
    farm = f"studio={urls['openai']}/v1={KEY}|price=0.005"
    lines.append(f"export FLUXFARM_CLOUDFLARE_ACCOUNT={ACCOUNT}")
    lines.append(f"export FLUXFARM_REPLICATE_WEBHOOK_SECRET={REPLICATE_SECRET}")
    lines.append(f"export FLUXFARM_OPENAI_ENDPOINTS='{','.join([*named, farm])}'")
    return lines


if __name__ == "__main__":
    main()
