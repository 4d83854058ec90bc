"""Pictures, figures and graphs in TensorBoard read back; loggers without them say so; own ones."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import small_models
from renshu.errors import ConfigError
from renshu.loggers import CSVLogger, Logger, TensorBoardLogger
from renshu.loggers.tracker import pixels

pyplot = pytest.importorskip("matplotlib.pyplot", reason="needs renshu[plots]")
Figure = pyplot.Figure


def opened(folder: Path, *, resume: bool = False) -> TensorBoardLogger:
    logger = TensorBoardLogger()
    logger.open(folder, resume=resume)
    return logger


def events(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0})
    found.Reload()
    return found


def pictures(folder: Path, tag: str) -> dict[int, np.ndarray]:
    return {
        image.step: np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))
        for image in events(folder).Images(tag)
    }


def test_images_and_figures_are_read_back(tmp_path: Path) -> None:  # capabilities F
    logger = opened(tmp_path)
    colours = torch.zeros(3, 2, 4)
    colours[0, 1, 2] = 1.0
    colours[2, 0, 0] = 0.5
    logger.log_image("pic", [colours, np.full((3, 3), 7, np.uint8)], step=4)
    pyplot.switch_backend("agg")
    figure, axes = pyplot.subplots(figsize=(2, 1), dpi=50)
    figure.patch.set_facecolor((0, 1, 0))
    axes.set_visible(False)
    logger.log_metrics({"loss": 1.0}, 9)
    logger.log_figure("fig", figure)
    assert not pyplot.get_fignums()
    logger.finalize("success")
    expected = np.zeros((2, 4, 3), np.uint8)
    expected[1, 2, 0], expected[0, 0, 2] = 255, 128
    assert np.array_equal(pictures(tmp_path, "pic")[4], expected)
    assert np.array_equal(pictures(tmp_path, "pic/1")[4], np.full((3, 3, 3), 7))
    [(step, drawn)] = pictures(tmp_path, "fig").items()
    assert step == 9
    assert drawn.shape == (50, 100, 4)
    assert (drawn == [0, 255, 0, 255]).all()


def test_after_a_resume_no_picture_is_twice(tmp_path: Path) -> None:
    logger = opened(tmp_path)  # pains/trainer.md row 29
    black, white = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    for step in range(4):
        logger.log_image("pic", [black], step)
    logger.save()
    again = opened(tmp_path, resume=True)
    for step in range(2, 6):
        again.log_image("pic", [white], step)
    again.finalize("success")
    found = {step: int(image.max()) for step, image in pictures(tmp_path, "pic").items()}
    assert found == {0: 0, 1: 0, 2: 0, 3: 0, 4: 255, 5: 255}
    assert len(events(tmp_path).Images("pic")) == 6


def test_the_graph_is_read_back(tmp_path: Path) -> None:  # capabilities F
    logger = opened(tmp_path)
    with pytest.raises(ConfigError, match="example input"):
        logger.log_graph(torch.nn.Linear(3, 2))
    logger.log_graph(torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU()), torch.zeros(1, 3))
    logger.finalize("success")
    graph: Any = events(tmp_path).Graph()
    assert {"aten::linear", "aten::relu"} <= {node.op for node in graph.node}


@pytest.mark.parametrize(
    "image",
    [
        torch.tensor([[[0.0, 1.0]], [[0.5, -3.0]], [[2.0, 0.25]]]),
        torch.tensor([[[0.0, 1.0]], [[0.5, -3.0]], [[2.0, 0.25]]], dtype=torch.bfloat16),
        np.array([[[0.0, 0.5, 2.0], [1.0, -3.0, 0.25]]]),
        torch.tensor([[[0, 255]], [[128, 0]], [[255, 64]]], dtype=torch.uint8),
        Image.fromarray(np.array([[[0, 128, 255], [255, 0, 64]]], np.uint8)),
    ],
)
def test_every_kind_of_picture_gives_the_same_pixels(image: Any) -> None:
    assert pixels(image).tolist() == [[[0, 128, 255], [255, 0, 64]]]


@pytest.mark.parametrize(
    "image", [np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2), np.int64), torch.zeros(1, 1, 2, 2)]
)
def test_what_is_no_picture_is_refused_with_its_shape(image: Any) -> None:
    with pytest.raises(ConfigError, match=r"(?s)a picture of shape \[.*allowed:"):
        pixels(image)


def test_a_table_refuses_pictures_by_name() -> None:
    logger = CSVLogger()
    with pytest.raises(ConfigError, match=r"CSVLogger keeps no images\n.*tensorboard"):
        logger.log_image("pic", [np.zeros((2, 2), np.uint8)])
    with pytest.raises(ConfigError, match="CSVLogger keeps no figures"):
        logger.log_figure("fig", Figure())
    with pytest.raises(ConfigError, match="CSVLogger keeps no graphs"):
        logger.log_graph(torch.nn.Linear(1, 1))
    with pytest.raises(ConfigError, match="TensorBoardLogger keeps no artifacts"):
        TensorBoardLogger().log_artifact("x")


class Noting(Logger):
    """A user's own logger: it overrides what it wants to know."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def open(self, run_dir: Path, *, resume: bool) -> None:
        self.told.append(("open", run_dir.name, resume))

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:
        self.told.append(("params", dict(params)))

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self.told.append((step, sorted(metrics)))

    def finalize(self, status: str) -> None:
        self.told.append(("end", status))


def test_a_users_own_logger_and_several_at_once(tmp_path: Path) -> None:  # capabilities F
    own = Noting()

    class Draws(small_models.Classifier):
        """Finds each logger by its place."""

        def on_train_epoch_end(self) -> None:
            image = np.zeros((2, 2), np.uint8)
            self.loggers[2].log_image("zeros", [image], self.global_step)

    trainer = small_models.trainer(
        logger=["csv", own, "tensorboard"], run="r", log_every_n_steps=6,
        default_root_dir=str(tmp_path),
    )  # fmt: skip
    trainer.fit(Draws(), small_models.loader(), small_models.loader(16))
    assert own.told == [
        ("open", "r", False),
        ("params", {"lr": 0.1, "seed": 0}),
        (5, ["epoch", "samples", "train_loss"]),
        (11, ["epoch", "samples", "val_loss"]),
        (11, ["epoch", "samples", "train_loss"]),
        ("end", "success"),
    ]
    assert (trainer.run_dir / "metrics.csv").is_file()  # type: ignore[operator]
    found: Any = events(tmp_path / "runs" / "r").Tags()
    assert {"train_loss", "val_loss"} <= set(found["scalars"])
    assert found["images"] == ["zeros"]
