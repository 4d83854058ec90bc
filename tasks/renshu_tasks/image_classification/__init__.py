"""Image classification: from a folder of pictures to a trained, calibrated classifier.

Imports no torch: `renshu train image_classification --help` answers at once.
"""

from renshu.task import Task
from renshu_tasks.image_classification.options import ImageClassificationOptions

_HERE = "renshu_tasks.image_classification"

task = Task(
    name="image_classification",
    summary="Which class, or classes, a picture belongs to.",
    extra="vision",
    options=ImageClassificationOptions,
    data=f"{_HERE}.data:build",
    module=f"{_HERE}.module:build",
    module_class=f"{_HERE}.module:ImageClassifier",
    callbacks=f"{_HERE}.module:callbacks",
    precision=f"{_HERE}.defaults:precision",
    finish=f"{_HERE}.module:finish",
    evaluate=f"{_HERE}.module:evaluate",
    predict=f"{_HERE}.predict:predict",
    report=f"{_HERE}.plots:sections",
    exports={"onnx": f"{_HERE}.export:to_onnx"},
    presets={"default": {"trainer.max_epochs": 30, "trainer.precision": "auto"}, "demo": {}},
)
