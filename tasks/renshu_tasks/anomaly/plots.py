"""The report's sections about a detector, from what `evaluation` left in the run folder."""

from __future__ import annotations

from pathlib import Path

from renshu.report import Section


def sections(run_dir: Path) -> list[Section]:
    """Everything the report says about the evaluation."""
    return []
