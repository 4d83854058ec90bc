"""The language model as a Module: losses of every head, optimiser, decisions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from renshu.callbacks.callback import Callback
from renshu.callbacks.model_checkpoint import ModelCheckpoint
from renshu.errors import ConfigError
from renshu.messages import say
from renshu.module import Module
from renshu_tasks.text import losses, models, speed
from renshu_tasks.text.encode import Encoder, tokenizer_from
from renshu_tasks.text.lora import LoraWatch
from renshu_tasks.text.options import ModelOptions, TextOptions, TrainingOptions

if TYPE_CHECKING:
    from renshu_tasks.text.data import TextData

Batch = dict[str, Tensor]
_OVERFLOWS = ("t5", "mt5", "umt5", "longt5", "pegasus", "gemma2", "gemma3_text")
_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")


class TextModel(Module):
    """A pretrained network with everything that belongs to its decisions.

    Batches are those of `TextData`. The tokenizer is part of every checkpoint.

    Args:
        config: the network's configuration, as transformers writes it.
        max_length: most tokens of a text.
        classes: names of the K classes or tags, in the order of the logits.
        multi_label: a text may have several labels.
        class_weights: weight of each class in the loss; for several labels, of its positives.
        scale: mean and deviation of the numbers (regression).
        model: which network, which head; a dict is what a checkpoint holds.
        training: how it learns.
        network: the pretrained network; None builds one whose weights a checkpoint brings.
        encoder: the function that reads texts; None where a checkpoint brings it.
    """

    temperature: Tensor
    thresholds: Tensor
    class_weights: Tensor | None
    scale: Tensor

    def __init__(
        self,
        config: Mapping[str, Any],
        max_length: int,
        classes: Sequence[str] = (),
        *,
        multi_label: bool = False,
        class_weights: Sequence[float] | None = None,
        scale: Sequence[float] = (0.0, 1.0),
        model: ModelOptions | Mapping[str, Any] | None = None,
        training: TrainingOptions | Mapping[str, Any] | None = None,
        network: nn.Module | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        super().__init__()
        net = model if isinstance(model, ModelOptions) else ModelOptions(**model or {})
        if not isinstance(training, TrainingOptions):
            training = TrainingOptions(**training or {})
        self.model = network or models.build(config, net.head, net, training)
        if training.learning_rate is None:
            rate = models.usual_rate(self.model, training)
            training = dataclasses.replace(training, learning_rate=rate)
        self.model_options, self.training_options = net, training
        self.head, self.classes, self.multi_label = net.head, list(classes), multi_label
        self.max_length = max_length
        self.encoder = encoder
        self.classifier: nn.Linear | None = None
        if self.head == "embedding" and classes:
            self.classifier = nn.Linear(self.model.config.hidden_size, len(classes))
            self.classifier.requires_grad_(False)  # fitted on the finished vectors
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", weights)
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("thresholds", torch.full((max(len(classes), 1),), 0.5))
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))
        self.save_hyperparameters(
            {
                "config": dict(config),
                "max_length": max_length,
                "classes": self.classes,
                "multi_label": multi_label,
                "class_weights": None if class_weights is None else list(class_weights),
                "scale": list(scale),
                "model": dataclasses.asdict(net),
                "training": dataclasses.asdict(training),
            }
        )

    # --- the tokenizer belongs to the model -------------------------------------------------------

    @property
    def reader(self) -> Encoder:
        """The encoder; raises ConfigError for a module that was made without one."""
        if self.encoder is None:
            raise ConfigError("the module has no tokenizer", mend="TextModel(..., encoder=Encoder)")
        return self.encoder

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.encoder is not None:
            checkpoint["tokenizer"] = self.encoder.files()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.encoder is None and "tokenizer" in checkpoint:
            tokenizer = tokenizer_from(checkpoint["tokenizer"])
            self.encoder = Encoder(tokenizer, self.head, self.max_length, self.classes)

    # --- from tokens to decisions -----------------------------------------------------------------

    def forward(self, batch: Batch) -> Tensor:
        """→ logits [B, K], [B] (regression), [B, L, K] or [B, L, V]; embedding: vectors [B, H]."""
        if self.head == "embedding":
            return self.embed(batch["input_ids"], batch["attention_mask"])
        if "features" in batch:
            return self._shaped(models.last_linear(self.model)(batch["features"]))
        inputs = {name: batch[name] for name in _INPUTS if name in batch}
        # Packed rows: transformers tells texts apart by their positions only without a cache.
        packed = {"use_cache": False} if "position_ids" in batch else {}
        return self._shaped(self.model(**inputs, **packed).logits)

    def _shaped(self, logits: Tensor) -> Tensor:
        return logits[..., 0] if self.head == "regression" else logits

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token ids [B, L] → vectors of length 1 [B, H]."""
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return pool(hidden, attention_mask, self.model_options.pooling)

    def logits(self, batch: Batch) -> Tensor:
        """What decisions rest on, float32: [B, K], [B] in the numbers' own unit, [B, L, K]."""
        found = self(batch).float()
        if self.classifier is not None:
            return self.classifier(found)
        return found * self.scale[1] + self.scale[0] if self.head == "regression" else found

    def scaled(self, logits: Tensor) -> Tensor:
        """Logits [..., K] → probabilities at the temperature chosen on the validation part."""
        scaled = logits / self.temperature
        return scaled.sigmoid() if self.multi_label else scaled.softmax(-1)

    def decide(self, probabilities: Tensor) -> Tensor:
        """Probabilities [B, K] → class int64 [B], or bool [B, K] when there may be several."""
        if self.multi_label:
            return probabilities >= self.thresholds
        if len(self.classes) == 2 and probabilities.ndim == 2:
            return (probabilities[:, 1] >= self.thresholds[1]).long()
        return probabilities.argmax(-1)

    # --- steps -----------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        kind = getattr(self.model.config, "model_type", "")
        precision = self.trainer.precision.name
        if precision.startswith("16") and kind in _OVERFLOWS:
            raise ConfigError(
                f"{kind} was trained in bfloat16, and its activations overflow in float16",
                where=f"trainer.precision={precision}",
                allowed="32-true, bf16-mixed, bf16-true",
            )
        if self.head == "embedding" and self.trainer.accumulate_grad_batches > 1:
            say(
                "accumulated batches add no texts to compare with: a larger data.batch_size does",
                once=True,
            )

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """→ the mean loss, and of how many items: samples, or tokens with a label."""
        found = losses.training(self, batch)
        self.log("train_loss", found["loss"], prog_bar=True)
        return found

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._log_evaluation(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._log_evaluation(batch, "test")

    def _log_evaluation(self, batch: Batch, part: str) -> None:
        """Loss without weights and smoothing, the same for every size of batch."""
        for name, (value, items) in losses.evaluation(self, batch).items():
            self.log(f"{part}_{name}", value, prog_bar=True, batch_size=max(items, 1))

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """→ calibrated probabilities, numbers or vectors."""
        found = self.logits(batch)
        return found if self.head in ("regression", "causal") else self.scaled(found)

    # --- what learns -----------------------------------------------------------------------------

    def configure_optimizers(self) -> dict[str, Any]:
        options = self.training_options
        groups = models.parameter_groups(self.model, options)
        optimizer = torch.optim.AdamW(groups, fused=self.device.type in ("cpu", "cuda"))
        steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            raise ConfigError(
                "the learning rate falls until the last step, so that must be known",
                where="trainer",
                mend="--trainer.max_epochs or --trainer.max_steps",
            )
        schedule = Warmup(int(steps), options.warmup, options.schedule)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


class Warmup:
    """Factor of the learning rate: linear up over a share of the steps, then down to 0.

    Down in a straight line (Devlin 2019) or as a cosine (Loshchilov and Hutter 2017).
    """

    def __init__(self, steps: int, warmup: float, shape: str) -> None:
        self.steps, self.shape = steps, shape
        self.rise = max(1, round(steps * warmup))

    def __call__(self, step: int) -> float:
        if step < self.rise:
            return (step + 1) / (self.rise + 1)
        left = 1 - min(1.0, (step - self.rise) / max(1, self.steps - self.rise))
        return left if self.shape == "linear" else 0.5 * (1 - math.cos(math.pi * left))


def pool(hidden: Tensor, mask: Tensor, how: str) -> Tensor:
    """Hidden states [B, L, H] and mask [B, L] → vectors of length 1 [B, H]."""
    if how == "mean":
        weights = mask[..., None].to(hidden.dtype)
        vectors = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
    elif how == "cls":
        vectors = hidden[:, 0]
    else:
        vectors = hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(1) - 1]
    return F.normalize(vectors.float(), dim=-1)


def build(options: TextOptions, data: TextData) -> TextModel:
    """The model for the data at hand, proven on some of them; see `renshu.task.Task`."""
    from renshu_tasks.text import proof

    if not torch.accelerator.is_available():
        speed.keep_memory()
    training = options.training
    speed.keep_memory()
    if training.threads:
        torch.set_num_threads(training.threads)
    encoder = data.encoder
    network = models.load(
        options.model,
        training,
        models.load_config(options.model),
        data.classes,
        encoder.tokenizer.pad_token_id,
    )
    balanced = training.class_weights == "balanced" and bool(data.classes)
    model = TextModel(
        network.config.to_dict(),
        encoder.max_length,
        data.classes,
        multi_label=data.options.multi_label,
        class_weights=data.class_weights() if balanced else None,
        scale=data.scale(),
        model=options.model,
        training=training,
        network=network,
        encoder=encoder,
    )
    proof.check(model, data)
    if training.tune == "head":
        data.use_features(model)
    if data.defaults.compile if training.compile is None else training.compile:
        model.model.compile()
    return model


def callbacks(options: TextOptions) -> list[Callback]:
    """Keep the epoch with the best loss on the validation part; watch low-rank updates learn."""
    found: list[Callback] = [ModelCheckpoint(monitor="val_loss", mode="min", save_last=True)]
    return [*found, LoraWatch()] if options.training.tune == "lora" else found


def finish(module: TextModel, data: TextData, run_dir: Path) -> None:
    """After training: temperature and thresholds on validation, then the test part, once.

    The model goes into hf/ as a folder that transformers loads. Without a test part the validation
    part is measured, under its own name.
    """
    from renshu_tasks.text import evaluation, folder

    evaluation.calibrate(module, data)
    part = "test" if len(data.parts["test"]) else "val"
    evaluation.evaluate(module, data, part, run_dir)
    evaluation.write_data(data, run_dir)
    folder.save(module, run_dir / folder.NAME, data)


def evaluate(module: TextModel, data: TextData, split: str, run_dir: Path) -> dict[str, Any]:
    """Measure a part and write what was found; used by `renshu evaluate`."""
    from renshu_tasks.text import evaluation

    return evaluation.evaluate(module, data, split, run_dir)
