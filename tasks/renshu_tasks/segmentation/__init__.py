"""Segmentation: from a folder of scans to masks in patient space, in 3-D and 2-D.

Imports no torch: `renshu train segmentation --help` answers at once.
"""

from renshu.task import Task
from renshu_tasks.segmentation.options import SegmentationOptions

_HERE = "renshu_tasks.segmentation"

task = Task(
    name="segmentation",
    summary="Which structure each voxel of a scan, or pixel of a picture, belongs to.",
    extra="medical",
    options=SegmentationOptions,
    data=f"{_HERE}.data:build",
    module=f"{_HERE}.module:build",
    module_class=f"{_HERE}.module:Segmenter",
    callbacks=f"{_HERE}.module:callbacks",
    precision=f"{_HERE}.defaults:precision",
    finish=f"{_HERE}.module:finish",
    evaluate=f"{_HERE}.module:evaluate",
    predict=f"{_HERE}.predict:predict",
    report=f"{_HERE}.plots:sections",
    check=f"{_HERE}.data:check",
    exports={"onnx": f"{_HERE}.export:to_onnx"},
    presets={
        "default": {"trainer.max_epochs": 20, "trainer.precision": "auto"},
        "demo": {
            "trainer.max_epochs": 1,
            "data.patches": 180,
            "training.overlap": 0.25,
            "training.full_cases": 0,
        },
    },
)
