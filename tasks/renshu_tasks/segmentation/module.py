"""The segmenter as a Module: loss, augmentation, optimiser, and masks of whole cases."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from renshu.callbacks.callback import Callback
from renshu.errors import ConfigError
from renshu.messages import say
from renshu.module import Module
from renshu_tasks.common.ema import averaged
from renshu_tasks.common.files import write_json
from renshu_tasks.segmentation import geometry, inference, models
from renshu_tasks.segmentation.augment import LEVELS, augment
from renshu_tasks.segmentation.case import IGNORE, Case
from renshu_tasks.segmentation.losses import segmentation_loss, shrunk
from renshu_tasks.segmentation.options import SegmentationOptions, TrainingOptions
from renshu_tasks.segmentation.plan import FILE, Plan
from renshu_tasks.segmentation.prepare import prepare

if TYPE_CHECKING:
    from renshu_tasks.segmentation.data import SegmentationData

Batch = dict[str, Tensor]
_RATES = {"adamw": 5e-3, "sgd": 1e-2}


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the segmenter says of a case.

    Attributes:
        mask: class numbers on the case's own grid, int16 [D, H, W] or [H, W].
        confidence: 0 to 1; see `calibration.coverage`.
    """

    mask: NDArray[np.int16]
    confidence: float


class Segmenter(Module):
    """A network with its plan and everything that belongs to its decisions.

    Batches are those of `patches.Patches`.

    Args:
        plan: how cases are prepared and which network it is; a dict is what a checkpoint holds.
        training: how it learns and predicts.
        class_weights: weight of each class in the cross-entropy.
        weights: see `ModelOptions.weights`; not kept, a checkpoint has its own.
    """

    temperature: Tensor
    threshold: Tensor
    class_weights: Tensor | None

    def __init__(
        self,
        plan: Plan | Mapping[str, Any],
        training: TrainingOptions | Mapping[str, Any] | None = None,
        class_weights: list[float] | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.plan = plan = plan if isinstance(plan, Plan) else Plan.from_json(plan, "checkpoint")
        if not isinstance(training, TrainingOptions):
            training = TrainingOptions(**training or {})
        if training.learning_rate is None:
            rate = _RATES[training.optimizer]
            training = dataclasses.replace(training, learning_rate=rate)
        if wrong := [axis for axis in training.mirror if axis >= plan.axes]:
            raise ConfigError(
                f"there is no axis {wrong[0]}",
                where="training.mirror",
                allowed=f"0 to {plan.axes - 1}",
            )
        self.training_options = training
        self.network = models.build_network(plan, weights)
        chosen = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", chosen)
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("threshold", torch.full((), 0.5))
        self.full_cases: Callable[[], Iterable[Case]] = list
        self.save_hyperparameters(
            {
                "plan": plan.to_json(),
                "training": dataclasses.asdict(training),
                "class_weights": class_weights,
            }
        )

    # --- from patches and cases to masks ----------------------------------------------------------

    def forward(self, image: Tensor) -> Tensor:
        """Prepared patches [B, C, *patch] → logits [B, K, *patch], before the temperature."""
        return self.network(image)[0]

    def decisive(self, image: Tensor) -> Tensor:
        """Logits [B, K, *patch] whose largest is the decision: of two classes, the threshold's."""
        logits = self(image)
        if len(self.plan.classes) != 2:
            return logits
        shift = self.temperature * torch.logit(self.threshold, eps=1e-6)
        return torch.stack([logits[:, 0], logits[:, 1] - shift], dim=1)

    def probabilities(self, image: Tensor) -> Tensor:
        """Prepared patches → calibrated probabilities [B, K, *patch]."""
        return (self(image).float() / self.temperature).softmax(1)

    def answer(self, case: Case) -> Answer:
        """The mask of a case on its own grid, and how sure it is."""
        options = self.training_options
        image = prepare(dataclasses.replace(case, mask=None), self.plan).image
        shape, affine = geometry.canonical_grid(case.shape, case.affine)
        mode = self.training
        self.eval()
        found = inference.segment(
            _Decisive(self),
            image,
            self.plan.patch,
            options.overlap,
            len(self.plan.classes),
            options.mirror if options.tta else (),
            shape=shape,
            batch=self.plan.batch_size,
        ).astype(np.int16, copy=False)
        confidence = self._confidence(image, found)
        self.train(mode)
        return Answer(geometry.resample_mask(found, affine, case.shape, case.affine), confidence)

    @torch.no_grad()
    def _confidence(self, image: NDArray[np.float32], found: NDArray[np.int16]) -> float:
        """Mean probability of the classes above 0 chosen in one patch, around their centre.

        1 where the mask is empty. One patch, so that neither memory nor time grow.
        """
        inside = found > 0
        if not inside.any():
            return 1.0
        centre = (_centre(inside) + 0.5) / found.shape * image.shape[1:]
        cut = [slice(None)]
        for middle, width, size in zip(centre, self.plan.patch, image.shape[1:], strict=True):
            start = int(np.clip(middle - width // 2, 0, max(size - width, 0)))
            cut.append(slice(start, start + width))
        patch = torch.from_numpy(np.ascontiguousarray(image[tuple(cut)]))
        sides = zip(reversed(self.plan.patch), reversed(patch.shape[1:]), strict=True)
        padding = [n for want, have in sides for n in (0, want - have)]
        patch = torch.nn.functional.pad(patch, padding)[None].to(self.device)
        best, chosen = self.probabilities(patch).max(1)
        return float(best[chosen > 0].mean()) if (chosen > 0).any() else 0.0

    # --- steps ------------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """Keep the plan from the first step on: a continuation follows it."""
        if self.trainer.run_dir is not None and self.trainer.is_global_zero:
            write_json(self.trainer.run_dir / FILE, self.plan.to_json())

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int = 0) -> Batch:
        """Augment the whole batch, in training."""
        if not self.training:
            return batch
        options = self.training_options
        image, mask = augment(
            batch["image"],
            batch["mask"],
            batch["draws"],
            LEVELS[options.augment],
            self.plan.spacing,
            options.mirror,
        )
        return {**batch, "image": image, "mask": mask}

    def loss(self, outputs: list[Tensor], batch: Batch) -> Tensor:
        """Outputs from the finest → one loss; each coarser one weighs half of the one before."""
        kind = self.training_options.loss
        weights = [0.5**level for level in range(len(outputs))]
        losses = [
            segmentation_loss(
                output,
                shrunk(batch["mask"], output.shape[2:]),
                batch["annotated"],
                kind,
                self.class_weights,
            )
            for output in outputs
        ]
        total = sum(weight * loss for weight, loss in zip(weights, losses, strict=True))
        return torch.as_tensor(total) / sum(weights)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """→ 0-dim loss."""
        loss = self.loss(self.network(batch["image"]), batch)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._log_patches(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._log_patches(batch, "test")

    def _log_patches(self, batch: Batch, part: str) -> None:
        """Loss and patch Dice: of patches laid around the classes, so not that of whole cases."""
        logits = self(batch["image"])
        self.log(f"{part}_loss", self.loss([logits], batch))
        dice = _mean_dice(logits.argmax(1), batch["mask"], batch["annotated"])
        if dice is not None:
            self.log(f"{part}_patch_dice", dice, prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        """Log the full-case Dice of the fixed subset, every so many epochs and at the end."""
        every = self.training_options.full_case_epochs
        last = self.trainer.max_epochs or 0
        if every is None:
            every = max(1, -(-last // 3))
        done = self.current_epoch + 1
        if self.trainer.sanity_checking or (done % every and done != last):
            return
        found = []
        for case in self.full_cases():
            assert case.mask is not None
            predicted, truth = (
                torch.from_numpy(mask)[None] for mask in (self.answer(case).mask, case.mask)
            )
            looked = torch.ones(1, len(self.plan.classes), dtype=torch.bool)
            if case.annotated is not None:
                looked[:, 1:] = False
                looked[:, list(case.annotated)] = True
            dice = _mean_dice(predicted, truth, looked)
            if dice is not None:
                found.append(dice)
        if found:
            self.log("val_full_case_dice", torch.stack(found).mean(), prog_bar=True, batch_size=1)

    # --- what learns ------------------------------------------------------------------------------

    def configure_optimizers(self) -> dict[str, Any]:
        options = self.training_options
        assert options.learning_rate is not None
        groups = models.parameter_groups(self.network, options.weight_decay)
        if options.optimizer == "sgd":
            optimizer: torch.optim.Optimizer = torch.optim.SGD(
                groups, lr=options.learning_rate, momentum=0.99, nesterov=True
            )
        else:
            optimizer = torch.optim.AdamW(groups, lr=options.learning_rate)
        steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            raise ConfigError(
                "the learning rate falls until the last step, so that must be known",
                where="trainer",
                mend="--trainer.max_epochs or --trainer.max_steps",
            )
        schedule = WarmupCosine(int(steps), options.warmup)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def _centre(inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The mean place of what is inside, along each axis; without a list of all places."""
    axes = range(inside.ndim)
    counts = [inside.sum(tuple(other for other in axes if other != axis)) for axis in axes]
    return np.array([np.average(np.arange(len(count)), weights=count) for count in counts])


class _Decisive(torch.nn.Module):
    """The segmenter as inference calls it: logits whose largest is the decision."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, image: Tensor) -> Tensor:
        return self.segmenter.decisive(image)


def _mean_dice(predicted: Tensor, truth: Tensor, annotated: Tensor) -> Tensor | None:
    """Mean Dice over the classes above 0 that either holds, over all voxels that are known.

    Args:
        predicted, truth: class numbers [B, *spatial]; IGNORE in the truth is unknown.
        annotated: bool [B, K]; a case says nothing of a class that nobody looked for.

    Returns:
        0-dim; None where neither holds any, since Dice is not defined there.
    """
    classes = annotated.shape[1]
    both = torch.zeros(classes, device=truth.device)
    sizes = torch.zeros(classes, device=truth.device)
    for one, true, looked in zip(predicted, truth, annotated, strict=True):
        known = true != IGNORE
        one, true = one[known].long(), true[known].long()
        both += looked * torch.bincount(true[one == true], minlength=classes)
        sizes += looked * (
            torch.bincount(one, minlength=classes) + torch.bincount(true, minlength=classes)
        )
    there = sizes[1:] > 0
    return (2 * both[1:][there] / sizes[1:][there]).mean() if there.any() else None


class WarmupCosine:
    """Factor of the learning rate: linear up over a share of the steps, then a cosine down to 0.

    Loshchilov and Hutter 2017 (without restarts); warm-up as in Goyal et al. 2017.
    """

    def __init__(self, steps: int, warmup: float) -> None:
        self.steps = steps
        self.rise = max(1, round(steps * warmup))

    def __call__(self, step: int) -> float:
        if step < self.rise:
            return (step + 1) / self.rise
        done = (step - self.rise) / max(1, self.steps - self.rise)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def build(options: SegmentationOptions, data: SegmentationData) -> Segmenter:
    """The segmenter for the data at hand; see `renshu.task.Task`."""
    if options.training.threads:
        torch.set_num_threads(options.training.threads)
    weights = None
    if options.training.class_weights == "balanced":
        weights = _balanced(data)
    for line in data.planned():
        say(line, once=True)
    # The weights of a run are those of its checkpoint.
    start = options.model.weights if data.followed is None else None
    segmenter = Segmenter(data.plan, options.training, weights, start)
    segmenter.full_cases = data.full_cases
    if options.training.compile:
        segmenter.network.compile()
    return segmenter


def _balanced(data: SegmentationData) -> list[float]:
    """Weights by the inverse square root of a class's share of the training voxels, mean 1."""
    train = [data.facts[row] for row in data.parts["train"]]
    counts = [
        sum(one.voxels.get(number, 0) for one in train) for number in range(len(data.classes))
    ]
    found = [1 / math.sqrt(max(count, 1)) for count in counts]
    return [value * len(found) / sum(found) for value in found]


def callbacks(options: SegmentationOptions) -> list[Callback]:
    """Averaged weights, unless switched off."""
    return averaged(options.training.ema_decay)


def finish(module: Segmenter, data: SegmentationData, run_dir: Path) -> None:
    """After training: temperature and threshold on validation, then the test part, once."""
    from renshu_tasks.segmentation import evaluation

    evaluation.write_plan(data, run_dir)
    evaluation.calibrate(module, data)
    evaluation.evaluate(module, data, "test" if data.parts["test"] else "val", run_dir)


def evaluate(
    module: Segmenter, data: SegmentationData, split: str, run_dir: Path
) -> dict[str, Any]:
    """Measure a part and write what was found; used by `renshu evaluate`."""
    from renshu_tasks.segmentation import evaluation

    return evaluation.evaluate(module, data, split, run_dir)
