"""Makes expected.json: what the other packages say about the cases of cases.py.

They cannot be installed together (TSB-AD 1.5 pins numpy < 2), so in an environment of their own:

    python -m venv /tmp/peers
    /tmp/peers/bin/pip install "numpy<2" scikit-learn numba toml statsmodels
    /tmp/peers/bin/pip install --no-deps --ignore-requires-python TSB-AD==1.5 vus==0.0.6 \
        aeon==1.6.0 timeeval==1.5.0 dtaianomaly==0.5.1 prts==1.0.0.3
    /tmp/peers/bin/python tests/tasks/anomaly/reference/expected.py

Only the files with the metrics are run: the packages' own `__init__` would import much more.
"""

from __future__ import annotations

import importlib
import json
import math
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from cases import Case, cases, digest


def bare(*packages: str) -> None:
    """Make packages importable without running their `__init__`."""
    for name in packages:
        top, _, rest = name.partition(".")
        folder = Path(find_spec(top).origin).parent if not rest else None
        folder = folder or Path(sys.modules[top].__path__[0]).joinpath(*rest.split("."))
        module = ModuleType(name)
        module.__path__ = [str(folder)]
        sys.modules[name] = module


def load() -> dict[str, ModuleType]:
    bare("TSB_AD", "vus", "timeeval", "timeeval.metrics", "dtaianomaly", "dtaianomaly.evaluation")
    bare("aeon", "aeon.benchmarking", "aeon.benchmarking.metrics")
    bare("aeon.benchmarking.metrics.anomaly_detection")
    aeon = "aeon.benchmarking.metrics.anomaly_detection"
    names = {
        "tsb": "TSB_AD.evaluation.basic_metrics",
        "affiliation": "vus.affiliation.metrics",
        "generics": "vus.affiliation.generics",
        "aeon_vus": f"{aeon}._vus_metrics",
        "aeon_range": f"{aeon}._range_metrics",
        "timeeval": "timeeval.metrics.vus_metrics",
        "prts": "prts",
    }
    return {key: importlib.import_module(name) for key, name in names.items()}


def volumes(peers: dict[str, ModuleType], case: Case) -> dict[str, list[float]]:
    labels, scores, window = case.labels, case.scores, case.window
    tsb = peers["tsb"].generate_curve(labels, scores, window, "opt", 250)
    aeon, timeeval = peers["aeon_vus"], peers["timeeval"]
    return {
        "tsb_ad": [tsb[-1], tsb[-2]],
        "aeon": [
            aeon.range_pr_vus_score(labels, scores, window),
            aeon.range_roc_vus_score(labels, scores, window),
        ],
        "aeon range": [
            aeon.range_pr_auc_score(labels, scores, window),
            aeon.range_roc_auc_score(labels, scores, window),
        ],
        "timeeval": [
            timeeval.RangePrVUS(window)(labels, scores),
            timeeval.RangeRocVUS(window)(labels, scores),
        ],
        "timeeval range": [
            timeeval.RangePrAUC(window)(labels, scores),
            timeeval.RangeRocAUC(window)(labels, scores),
        ],
    }


def flags(peers: dict[str, ModuleType], case: Case) -> dict[str, object]:
    labels, alarms = case.labels, case.alarms
    grader = peers["tsb"].basic_metricor()
    events = [peers["generics"].convert_vector_to_events(one) for one in (alarms, labels)]
    near = peers["affiliation"].pr_from_events(*events, (0, len(labels)))
    found = {
        "affiliation": [near["Affiliation_Precision"], near["Affiliation_Recall"]],
        "tsb_ad range": grader.metric_RF1(labels, case.scores, alarms),
        "tsb_ad composite": grader.metric_EventF1PA(labels, case.scores, alarms),
        "tsb_ad adjusted": grader.metric_PointF1PA(labels, case.scores),
        "tsb_ad oracle range": grader.metric_RF1(labels, case.scores),
        "tsb_ad oracle composite": grader.metric_EventF1PA(labels, case.scores),
        "tsb_ad oracle affiliation": grader.metric_Affiliation(labels, case.scores),
        "tsb_ad areas": [
            grader.metric_PR(labels, case.scores),
            grader.metric_ROC(labels, case.scores),
        ],
        "aeon range": peers["aeon_range"].range_f_score(labels, alarms),
        "dtaianomaly event": dtaianomaly(labels, alarms),
    }
    for position in ("flat", "front", "middle", "back"):
        found[f"prts {position}"] = peers["prts"].ts_fscore(
            labels, alarms, p_alpha=0, r_alpha=0.3, cardinality="reciprocal", r_bias=position
        )
    return found


def dtaianomaly(labels, alarms) -> list[float]:
    """Its event-wise precision and recall."""
    numba = importlib.import_module("numba")
    numba.bool = numba.bool_  # the short name comes with NumPy 2
    module = importlib.import_module("dtaianomaly.evaluation._event_wise_metrics")
    compute = module._compute_event_wise_metrics
    return list(compute(labels.astype(bool), alarms.astype(bool)))


def plain(value: object) -> object:
    """Numbers that JSON can hold: NaN is None."""
    if isinstance(value, dict | list | tuple):
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value]
    return None if math.isnan(value) else float(value)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    peers = load()
    rows = [
        {
            "name": case.name,
            "vus": plain(volumes(peers, case)),
            "flags": plain(flags(peers, case)),
        }
        for case in cases()
    ]
    record = {"cases": digest(), "rows": rows}
    target = Path(__file__).with_name("expected.json")
    target.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
