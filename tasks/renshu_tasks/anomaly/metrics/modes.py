"""Range-AUC and VUS as different packages define them: the same words, other choices.

Paparrizos et al., Volume Under the Surface, PVLDB 15(11), 2022. The released packages differ in
every point below, so a figure says little without the name of its mode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from renshu.errors import unknown


@dataclass(frozen=True, kw_only=True)
class Mode:
    """How labels get soft edges and how the area is taken. docs/metrics.md has the formulas.

    Attributes:
        slope: weight at distance d in a window w: root: sqrt(1 - d/w); linear: from 1 down to
            1/sqrt(2) at w//2.
        short_right: the buffer behind an event is a point shorter than the one before it.
        summed: where buffers overlap their weights add up to at most 1; else the largest holds.
        merged: events whose buffers meet count as one when it is asked if all were found.
        peeks: an event is found as well by the first point behind its buffer that has a weight.
        predicted_mass: the positive mass holds the buffers' weight at the alarms only; else half of
            all of it, at every threshold.
        thresholds: so many scores, at equal steps of rank, are tried; None: every distinct score.
        trapezoid: the area under precision and recall is taken by trapezoids from (0, 1); else by
            steps with the precision of the newer point.
        constant_zero: a constant score has the figure 0 by definition.
    """

    slope: Literal["root", "linear"] = "root"
    short_right: bool = False
    summed: bool = False
    merged: bool = False
    peeks: bool = False
    predicted_mass: bool = False
    thresholds: int | None = 250
    trapezoid: bool = False
    constant_zero: bool = False


MODES = {
    "exact": Mode(thresholds=None),
    "tsb_ad": Mode(summed=True, merged=True, predicted_mass=True),
    "aeon": Mode(short_right=True, summed=True, merged=True, trapezoid=True, constant_zero=True),
    "timeeval": Mode(slope="linear", peeks=True, trapezoid=True, constant_zero=True),
}
"""`tsb_ad`: TSB-AD 1.5, `RangeAUC_volume_opt` (its `RangeAUC` divides by zero). `aeon`: aeon 1.6.
`timeeval`: TimeEval 1.5 without its compatibility mode; dtaianomaly 0.5 has the same."""


def find_mode(name: str) -> Mode:
    """The mode of that name; raises ConfigError with the names there are."""
    if name not in MODES:
        raise unknown("mode", name, MODES)
    return MODES[name]
