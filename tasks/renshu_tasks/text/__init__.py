"""Text: from labelled texts or conversations to a fine-tuned, calibrated language model.

Imports no torch: `renshu train text --help` answers at once.
"""

from renshu.task import Task
from renshu_tasks.text.options import TextOptions

_HERE = "renshu_tasks.text"

task = Task(
    name="text",
    summary="Labels, tags, continuations or vectors of texts, by a pretrained language model.",
    extra="text",
    options=TextOptions,
    data=f"{_HERE}.data:build",
    module=f"{_HERE}.module:build",
    module_class=f"{_HERE}.module:TextModel",
    callbacks=f"{_HERE}.module:callbacks",
    precision=f"{_HERE}.defaults:precision",
    finish=f"{_HERE}.module:finish",
    evaluate=f"{_HERE}.module:evaluate",
    predict=f"{_HERE}.predict:predict",
    report=f"{_HERE}.plots:sections",
    exports={"hf": f"{_HERE}.export:to_hf", "onnx": f"{_HERE}.export:to_onnx"},
    presets={
        "default": {
            "trainer.max_epochs": 2,
            "trainer.precision": "auto",
            "trainer.gradient_clip_val": 1.0,
        },
        "demo": {"data.limit": 500, "trainer.max_epochs": 1},
        "full": {"data.limit": 0, "trainer.max_epochs": 2},
    },
)
