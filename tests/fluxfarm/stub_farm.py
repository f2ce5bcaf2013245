"""A farm whose parts are small stand-ins, so that the supervisor can be watched; ``FARM_PARTS`` names them."""

from __future__ import annotations

import json
import os
import sys

from fluxfarm import farm, parts
from fluxfarm.parts import Access, Part, Plan
from fluxfarm.settings import Settings

#: Ends on SIGTERM only after a while, as a worker does that finishes its render.
SLOW = (
    "import signal,sys,time; signal.signal(15,lambda *_:(time.sleep(0.5),print('finished',flush=True),sys.exit(0))); {}"
)
PROGRAMS = {
    "sleeper": "import time; time.sleep(600)",
    "slow": SLOW.format("print('on duty', flush=True); time.sleep(600)"),
    "deaf": "import signal,time; signal.signal(15,signal.SIG_IGN); print('on duty', flush=True); time.sleep(600)",
    "broken": "import sys; sys.exit('the reason why')",
    "parent": "import subprocess,time; print(subprocess.Popen(['sleep','600']).pid, flush=True); time.sleep(600)",
    "where": "import os,time; print(os.getcwd(), os.environ['FLUXFARM_DATA_DIR'], flush=True); time.sleep(600)",
}


def stand_ins(settings: Settings, _access: Access) -> tuple[Part, ...]:
    web = (sys.executable, "-m", "http.server", str(settings.port), "--bind=127.0.0.1", "--directory=/var/empty")
    known = {name: Part(name=name, argv=(sys.executable, "-c", program)) for name, program in PROGRAMS.items()}
    known["web"] = Part(
        name="web", argv=web, ready=lambda client, _: bool(client.get(parts.local_url(settings)).content)
    )
    known["never"] = Part(name="never", argv=known["slow"].argv, ready=lambda _, __: False)
    return tuple(known[name] for name in os.environ["FARM_PARTS"].split(","))


ENDS_AT_ONCE = (sys.executable, "-c", "print('{}')".format(json.dumps({"api_key": "ff_live_stub"})))
STUBBED = Plan(migrate=ENDS_AT_ONCE, bootstrap=ENDS_AT_ONCE, parts=stand_ins, durable=False)
REAL_COMMANDS = Plan(migrate=parts.FARM.migrate, bootstrap=parts.FARM.bootstrap, parts=stand_ins, durable=False)

if __name__ == "__main__":
    sys.exit(farm.run(Settings(), REAL_COMMANDS if os.environ.get("FARM_COMMANDS") == "real" else STUBBED))
