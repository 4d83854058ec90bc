"""The texts and their labels: tweets until config.yaml names texts of your own."""

from renshu_tasks.text.data import TextData
from renshu_tasks.text.options import DataOptions as DataOptions
from renshu_tasks.text.options import ModelOptions, TextOptions, TrainingOptions
from renshu_tasks.text.sources import find


def load(data: DataOptions, model: ModelOptions, training: TrainingOptions) -> TextData:
    """Find, check and split the texts, make tokens of them once, and say what was found.

    The tokenizer is that of the model. A batch is a dict: input_ids and attention_mask int64 [B, L],
    label int64 [B], index int64 [B] (row in the source).
    """
    options = TextOptions(data=data, model=model, training=training)
    found = TextData(find(data), options)
    print(*found.summary(), sep="\n")
    return found
