"""The scans and their masks: a brain template until config.yaml names data of your own."""

from renshu_tasks.segmentation.data import SegmentationData
from renshu_tasks.segmentation.options import DataOptions as DataOptions
from renshu_tasks.segmentation.options import ModelOptions, SegmentationOptions, TrainingOptions
from renshu_tasks.segmentation.sources import find


def load(data: DataOptions, model: ModelOptions, training: TrainingOptions) -> SegmentationData:
    """Find, examine and split the cases, plan for them, and say what was found.

    The plan (spacing, patch, network) follows from the training part and from what the options
    fix. A batch is a dict of patches: image float32 [B, C, *patch], mask int64 [B, *patch] and more
    that the model's base class reads.
    """
    options = SegmentationOptions(data=data, model=model, training=training)
    found = SegmentationData(find(data), options)
    print(*found.summary(), sep="\n")
    return found
