"""Figures of finished masks in millimetres: a case, a class, and means that say what they count.

Libraries disagree on nearly every one of them, so each carries its definition's name; the tests
hold ours against the libraries they are named after.
"""

from renshu_tasks.segmentation.metrics.cases import FIGURES, TOLERANCE_MM, case_metrics
from renshu_tasks.segmentation.metrics.definitions import DEFINITIONS, definitions
from renshu_tasks.segmentation.metrics.summary import in_words, summarise

__all__ = [
    "DEFINITIONS",
    "FIGURES",
    "TOLERANCE_MM",
    "case_metrics",
    "definitions",
    "in_words",
    "summarise",
]
