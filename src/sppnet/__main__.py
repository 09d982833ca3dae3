"""``python -m sppnet`` is the program ``sppnet``."""

from __future__ import annotations

import sys

from sppnet.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
