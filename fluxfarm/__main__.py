"""``python -m fluxfarm`` is the command ``fluxfarm``."""

import sys

from fluxfarm.cli import main

sys.exit(main())
