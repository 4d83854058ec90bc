"""The pictures and their labels: handwritten digits until config.yaml names data of your own."""

from renshu_tasks.image_classification.data import ImageData
from renshu_tasks.image_classification.options import DataOptions as DataOptions
from renshu_tasks.image_classification.sources import find


def load(options: DataOptions) -> ImageData:
    """Find, check and split the pictures, and say what was found.

    A batch is a dict: image uint8 [B, C, H, W], label int64 [B], index int64 [B] (row in the
    source) and in training seed int64 [B].
    """
    data = ImageData(find(options), options)
    print(data.describe())
    return data
