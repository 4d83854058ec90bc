"""Files that a task leaves in a run's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_json(file: Path, value: Any) -> None:
    """JSON without NaN and infinity, which other readers refuse."""
    file.write_text(json.dumps(value, indent=1, allow_nan=False), encoding="utf-8")
