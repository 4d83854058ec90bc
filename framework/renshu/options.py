"""The Trainer's options: the one place that names them. Imports no torch.

Names and meanings follow Lightning's Trainer; `validate_every`, `log_every`, `stop_after`, `run`,
`seed` and `on_nonfinite` are renshu's own. `Any` marks what only Python code can give.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

PRECISIONS = {
    "32-true": ("32", "full", "single"),
    "bf16-mixed": ("bf16",),
    "bf16-true": (),
    "16-mixed": ("16",),
    "64-true": ("64", "double"),
}
"""Every precision and its short names."""

WHOLE_NUMBERS = {
    "max_epochs": -1,
    "min_epochs": 0,
    "max_steps": -1,
    "min_steps": 0,
    "num_nodes": 1,
    "fast_dev_run": 0,
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "num_sanity_val_steps": -1,
    "log_every_n_steps": 1,
    "reload_dataloaders_every_n_epochs": 0,
    "seed": 0,
}
"""Options that are whole numbers, and the lowest each may be."""


@dataclass(kw_only=True)
class TrainerOptions:
    """How to train: device, length, intervals, precision, what to write.

    Attributes:
        accelerator: kind of device: auto, cpu, gpu, cuda, mps or tpu.
        devices: how many devices, or "auto".
        strategy: how several devices work together; "auto" is one device.
        num_nodes: machines that take part.
        precision: 32-true, bf16-mixed, bf16-true, 16-mixed, 64-true or a short name of these; on
            the command line also auto, the task's choice for the device.
        max_epochs: stop after so many epochs (1000 when no other limit is given; -1: no limit).
        min_epochs: an early stop waits for so many epochs.
        max_steps: stop after so many optimiser steps; -1: no limit.
        min_steps: an early stop waits for so many optimiser steps.
        max_time: stop after a wall time, "DD:HH:MM:SS"; not reproducible.
        stop_after: stop after an interval, such as "10000 samples".
        limit_train_batches: batches an epoch (int) or their share (float).
        limit_val_batches: the same for validation.
        limit_test_batches: the same for testing.
        limit_predict_batches: the same for prediction.
        overfit_batches: train on the first few batches (or share) only, the same in every epoch,
            and validate on as many.
        fast_dev_run: one batch (or N) of everything, nothing written.
        val_check_interval: validate after so many batches (int) or each share of an epoch (float).
        check_val_every_n_epoch: validate every so many epochs.
        validate_every: validate at an interval, such as "100 steps"; replaces the two above.
        num_sanity_val_steps: validation batches to try before training; -1: all.
        log_every_n_steps: send the values logged in a step to the loggers every so many steps.
        log_every: the same as an interval.
        accumulate_grad_batches: batches an optimiser step.
        gradient_clip_val: limit of the gradients' norm or value.
        gradient_clip_algorithm: norm or value.
        on_nonfinite: what a NaN or infinite loss does: stop the run; skip the step (one host sync a
            step); rollback to the newest checkpoint and leave out the batches since; or ignore it.
        seed: seed of this run; drawn, printed and stored when none is given.
        deterministic: use deterministic algorithms only; "warn" reports those that are not.
        benchmark: let cuDNN time its algorithms; None leaves torch's setting.
        inference_mode: evaluate under torch.inference_mode instead of no_grad.
        compile: torch.compile the parts of the module.
        detect_anomaly: torch's autograd anomaly detection; slow.
        sync_batchnorm: batch norm over the samples of all processes; GPUs only, as torch has it.
        use_distributed_sampler: shard the samplers over the processes.
        reload_dataloaders_every_n_epochs: ask for the loaders again every so many epochs; 0: never.
        run: name of the run's folder; None makes "<date>-<n>".
        default_root_dir: where "runs/" is made; None is the working directory.
        logger: True is the CSV logger, False none; or loggers, or their names: "csv",
            "tensorboard", "wandb", "mlflow".
        callbacks: callbacks to call, in this order.
        profiler: "simple" shows where the time went, "pytorch" is torch.profiler; or a Profiler.
        enable_checkpointing: save a checkpoint after each epoch unless a ModelCheckpoint says more.
        enable_progress_bar: show the live line.
        enable_model_summary: print the parts of the model before training.
        barebones: no logger, bar, summary or checkpoint: for measuring the loop itself.
    """

    accelerator: str = "auto"
    devices: int | str | list[int] = "auto"
    strategy: str = "auto"
    num_nodes: int = 1
    precision: str | int = "32-true"
    max_epochs: int | None = None
    min_epochs: int | None = None
    max_steps: int = -1
    min_steps: int | None = None
    max_time: str | None = None
    stop_after: str | None = None
    limit_train_batches: int | float | None = None
    limit_val_batches: int | float | None = None
    limit_test_batches: int | float | None = None
    limit_predict_batches: int | float | None = None
    overfit_batches: int | float = 0.0
    fast_dev_run: bool | int = False
    val_check_interval: int | float | None = None
    check_val_every_n_epoch: int | None = 1
    validate_every: str | None = None
    num_sanity_val_steps: int | None = None
    log_every_n_steps: int | None = None
    log_every: str | None = None
    accumulate_grad_batches: int = 1
    gradient_clip_val: float | None = None
    gradient_clip_algorithm: Literal["norm", "value"] | None = None
    on_nonfinite: Literal["stop", "skip", "rollback", "ignore"] = "stop"
    seed: int | None = None
    deterministic: bool | Literal["warn"] | None = None
    benchmark: bool | None = None
    inference_mode: bool = True
    compile: bool = False
    detect_anomaly: bool = False
    sync_batchnorm: bool = False
    use_distributed_sampler: bool = True
    reload_dataloaders_every_n_epochs: int = 0
    run: str | None = None
    default_root_dir: str | None = None
    logger: Any = None
    callbacks: Any = None
    profiler: Any = None
    enable_checkpointing: bool | None = None
    enable_progress_bar: bool | None = None
    enable_model_summary: bool | None = None
    barebones: bool = False
