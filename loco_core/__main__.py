"""`python -m loco_core`: see commands/app.py."""

from __future__ import annotations

import sys

from .commands.app import main

if __name__ == "__main__":
    sys.exit(main())
