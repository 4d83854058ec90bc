"""Anomaly detection in time series: a score a point, a threshold, alarms, batch and stream.

Imports neither torch nor numpy: `renshu train anomaly --help` answers at once.
"""

from renshu.task import Task
from renshu_tasks.anomaly.options import AnomalyOptions

_HERE = "renshu_tasks.anomaly"

task = Task(
    name="anomaly",
    summary="Which points of a time series are not as usual.",
    extra="anomaly",
    options=AnomalyOptions,
    data=f"{_HERE}.data:build",
    module=f"{_HERE}.module:build",
    module_class=f"{_HERE}.module:AnomalyDetector",
    callbacks=f"{_HERE}.module:callbacks",
    precision=f"{_HERE}.defaults:precision",
    finish=f"{_HERE}.module:finish",
    evaluate=f"{_HERE}.module:evaluate",
    predict=f"{_HERE}.predict:predict",
    report=f"{_HERE}.plots:sections",
    bench=f"{_HERE}.bench.command:run",
    presets={
        "default": {"trainer.max_epochs": 50, "trainer.precision": "auto"},
        "demo": {"model.name": "autoencoder", "model.window": 50, "trainer.max_epochs": 20},
    },
)
