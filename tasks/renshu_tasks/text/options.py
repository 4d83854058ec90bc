"""The options of the text task. Imports neither torch nor numpy: --help answers at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from renshu.errors import ConfigError
from renshu_tasks.common.options import check, check_test_share, check_val_share


@dataclass(kw_only=True)
class DataOptions:
    """Where the texts and labels come from, and how they are split, cut to length and loaded.

    Attributes:
        path: .csv, .tsv, .jsonl, .parquet, .txt or .conll file, a folder with such files named
            train, val and test, a saved Hugging Face data set, or "hub:OWNER/NAME"; without it the
            embedded tweets.
        download: let "hub:" data sets be fetched when they are not in the local cache.
        classes: the allowed labels in their order; default: those found, sorted.
        text_column: name of the column with the text; default: text, sentence or the like.
        pair_column: column of a second text that belongs to the first; default: none.
        label_column: column of the label, the number (regression) or the tags (tokens).
        split_column: name of the column that says train, val or test; default: "split" if there.
        group_column: column of what must stay together (document, author); default: "group" if
            there, else texts that are equal when normalised stay together.
        multi_label: a text may have several labels, or none.
        label_separator: what stands between the labels of a multi-label table.
        encoding: of text files.
        val_share: share of the training texts kept for validation.
        test_share: share kept for the test; default: 0.2 unless the source has parts of its own.
        split_seed: seed of the split; the same seed gives the same parts.
        limit: texts used at most of each part, drawn by split_seed; 0: all. Default: all, and of
            the embedded texts so many as train in five minutes on two cores.
        max_length: longest text in tokens; default: what the model takes, at most 512.
        batch_size: texts a batch; default: from the table for this device.
        token_budget: tokens a batch, padding included, in place of batch_size.
        bucket: batches hold texts of like length.
        pack: causal models: several texts share a row, and none sees another.
        num_workers: processes that load; default: from the table for this device.
        on_empty: fail, or skip: leave out rows without a text, and say how many.
        max_chars: longest text that is taken, in characters.
        chat_template: file with the template of conversations; default: the tokenizer's.
        cache: folder for tokenised texts; default: below the user's cache.
        allow_overlap: let the same text be in several parts.
        mask_private: hide handles, e-mail addresses and telephone numbers in the report.
    """

    path: str | None = None
    download: bool = False
    classes: list[str] | None = None
    text_column: str | None = None
    pair_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    group_column: str | None = None
    multi_label: bool = False
    label_separator: str = "|"
    encoding: str = "utf-8"
    val_share: float = 0.1
    test_share: float | None = None
    split_seed: int = 0
    limit: int | None = None
    max_length: int | None = None
    batch_size: int | None = None
    token_budget: int | None = None
    bucket: bool = True
    pack: bool = False
    num_workers: int | None = None
    on_empty: Literal["fail", "skip"] = "fail"
    max_chars: int = 1_000_000
    chat_template: str | None = None
    cache: str | None = None
    allow_overlap: bool = False
    mask_private: bool = True

    def __post_init__(self) -> None:
        check_val_share(self.val_share)
        check_test_share(self.test_share)
        one_up = ("batch_size", "token_budget", "max_chars")
        counts: dict[str, tuple[float, float]] = dict.fromkeys(one_up, (1, math.inf))
        counts |= {"num_workers": (0, 4096), "limit": (0, math.inf), "max_length": (4, 10**6)}
        check(self, "data", counts | {"split_seed": (0, 2**32 - 1)})


@dataclass(kw_only=True)
class ModelOptions:
    """Which pretrained model, and what it is to learn.

    Attributes:
        name: folder of a pretrained model, or its name on the Hugging Face hub; default: the
            embedded MiniLM-L6. Only .safetensors are read, and no code that comes with a model.
        head: what it gives: classification (one or, with data.multi_label, several labels a text
            or pair), regression, tokens (a tag a word), causal (the text's continuation, or the
            answers of conversations) or embedding (a vector a text).
        download: let a model be fetched that is not in the local cache.
        dropout: share of activations set to zero in training; default: the model's own.
        pooling: of embedding: mean of the tokens, cls, or last token.
        attention: sdpa (fused) or eager.
        lora_rank: rank of the update that is learned with training.tune lora (Hu 2021).
        lora_alpha: its scale is lora_alpha / lora_rank.
        lora_dropout: share of its inputs set to zero.
        lora_targets: names of the layers that it is added to; default: all linear ones.
    """

    name: str | None = None
    head: Literal["classification", "regression", "tokens", "causal", "embedding"] = (
        "classification"
    )
    download: bool = False
    dropout: float | None = None
    pooling: Literal["mean", "cls", "last"] = "mean"
    attention: Literal["sdpa", "eager"] = "sdpa"
    lora_rank: int = 8
    lora_alpha: float = 16.0
    lora_dropout: float = 0.0
    lora_targets: list[str] | None = None

    def __post_init__(self) -> None:
        shares = dict.fromkeys(("dropout", "lora_dropout"), (0, 0.99))
        check(self, "model", shares | {"lora_rank": (1, 4096), "lora_alpha": (0, 10**6)})


@dataclass(kw_only=True)
class TrainingOptions:
    """How it learns, and what is chosen on the validation part.

    Attributes:
        learning_rate: the highest; default: 1e-4 to tune all of a small model (up to 50 million
            parameters), 3e-5 of a larger one, 1e-3 with lora and for a head alone.
        warmup: share of the steps in which it rises.
        schedule: how it falls after that: linear or cosine, both to 0.
        weight_decay: pull towards 0; not on biases and norms.
        layer_decay: factor of the learning rate from each layer to the one below it.
        tune: what learns: all; head: the encoder is frozen, its output is computed once and kept;
            lora: a low-rank update of each linear layer, and the head.
        checkpointing: recompute activations in the backward pass to save memory.
        label_smoothing: share of the label's weight that is spread over all classes.
        class_weights: none; balanced: a class weighs the inverse of its frequency in training.
        contrast: temperature of the contrastive loss of embedding.
        calibrate: scale the logits by a temperature chosen on the validation part (Guo 2017).
        threshold: decision threshold of two-class and multi-label tasks: f1: the best on the
            validation part, or a number.
        threads: processor threads of torch; default: from the table for this device.
        compile: torch.compile the network; default: from the table for this device.
    """

    learning_rate: float | None = None
    warmup: float = 0.06
    schedule: Literal["linear", "cosine"] = "linear"
    weight_decay: float = 0.01
    layer_decay: float = 1.0
    tune: Literal["all", "head", "lora"] = "all"
    checkpointing: bool = False
    label_smoothing: float = 0.0
    class_weights: Literal["none", "balanced"] = "none"
    contrast: float = 0.05
    calibrate: bool = True
    threshold: Literal["f1"] | float = "f1"
    threads: int | None = None
    compile: bool | None = None

    def __post_init__(self) -> None:
        names = ("warmup", "label_smoothing", "layer_decay", "threshold")
        shares: dict[str, tuple[float, float]] = dict.fromkeys(names, (0, 1))
        sizes = dict.fromkeys(("weight_decay", "learning_rate"), (0, 1000))
        check(self, "training", shares | sizes | {"threads": (1, 4096), "contrast": (1e-4, 100)})


@dataclass(kw_only=True)
class TextOptions:
    """Everything that the text task can be told.

    Attributes:
        data: where the texts come from, how they are split and loaded.
        model: which pretrained model, with which head.
        training: how it learns.
    """

    data: DataOptions = field(default_factory=DataOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)

    def __post_init__(self) -> None:
        head, tune = self.model.head, self.training.tune
        if self.data.multi_label and head != "classification":
            raise ConfigError(
                f"several labels a text do not go with {head}",
                where="data.multi_label",
                mend="--model.head classification",
            )
        if self.data.pack and head != "causal":
            raise ConfigError(
                f"texts are packed for causal models, not for {head}",
                where="data.pack",
                mend="--data.bucket true spares the padding of the others",
            )
        if tune == "head" and head not in ("classification", "regression"):
            raise ConfigError(
                f"a frozen encoder does not go with {head}",
                where="training.tune",
                allowed="all, lora; head for classification and regression",
            )
