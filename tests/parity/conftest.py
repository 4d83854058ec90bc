"""The parity suite's own folder is importable: its test files share compare.py."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
