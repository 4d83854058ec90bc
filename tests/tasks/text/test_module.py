"""The model in training: exact losses, batches of any size, what learns and what does not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from renshu.callbacks.callback import Callback
from renshu.errors import CheckpointError, ConfigError, RunError
from renshu.seeds import seed_everything
from renshu.trainer import Trainer
from renshu_tasks.text import data as data_part
from renshu_tasks.text import folder, generation, losses, models, proof
from renshu_tasks.text import module as parts
from renshu_tasks.text.data import TextData
from renshu_tasks.text.module import TextModel, Warmup
from renshu_tasks.text.options import DataOptions, ModelOptions, TextOptions, TrainingOptions

Rows = list[dict[str, Any]]
Write = Callable[..., Path]


def build(
    path: Path, pretrained: Path, head: str = "classification", **sections: dict[str, Any]
) -> tuple[TextModel, TextData, TextOptions]:
    options = TextOptions(
        data=DataOptions(path=str(path), **sections.get("data", {})),
        model=ModelOptions(name=str(pretrained), head=head, **sections.get("model", {})),
        training=TrainingOptions(**sections.get("training", {})),
    )
    seed_everything(0, verbose=False)
    data = data_part.build(options)
    return parts.build(options, data), data, options


def fit(module: TextModel, data: TextData, options: TextOptions, run: Path, **more: Any) -> Trainer:
    trainer = Trainer(
        **{"max_epochs": 1, "seed": 0, "default_root_dir": run, "logger": False}
        | {"enable_progress_bar": False, "enable_model_summary": False}
        | {"callbacks": parts.callbacks(options)}
        | more
    )
    trainer.fit(module, datamodule=data)
    return trainer


@pytest.fixture
def mixed(write_jsonl: Write) -> Path:
    """Texts of very different lengths in three classes of different size."""
    random = np.random.default_rng(0)
    rows = [
        {"text": f"{n} " + "abc" * int(random.integers(1, 30)), "label": "xyyzzz"[n % 6]}
        for n in range(90)
    ]
    return write_jsonl(rows, "mixed.jsonl")


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    random = np.random.default_rng(1)
    file = tmp_path / "lines.txt"
    file.write_text("".join(f"{n}" + "ab" * int(random.integers(1, 40)) + "\n" for n in range(80)))
    return file


def gradient(module: TextModel, data: TextData, run: Path, size: int, count: int) -> torch.Tensor:
    """Of the first 8 training rows in `count` batches of `size`: the change of one SGD step."""
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=1.0)  # type: ignore[method-assign]
    before = torch.cat([p.detach().flatten().clone() for p in module.parameters()])
    samples = data.samples("train")
    rows = np.random.default_rng(2).permutation(len(samples))[:8].tolist()
    groups = [rows[start : start + size] for start in range(0, 8, size)]
    loader = torch.utils.data.DataLoader(samples, batch_sampler=groups, collate_fn=data.collate)
    trainer = Trainer(
        max_epochs=1, seed=0, default_root_dir=run, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, accumulate_grad_batches=count,
    )  # fmt: skip
    trainer.fit(module, loader)
    assert trainer.global_step == 1
    return before - torch.cat([p.detach().flatten() for p in module.parameters()])


@pytest.mark.parametrize("head", ["classification", "causal"])
def test_splitting_a_batch_does_not_change_the_gradient(
    bert: Path, llama: Path, mixed: Path, lines: Path, tmp_path: Path, head: str
) -> None:
    """# pains/text_serving.md row 2: 1x8, 2x4, 8x1 of rows of different lengths and weights"""
    path, model = (mixed, bert) if head == "classification" else (lines, llama)
    more = {"class_weights": "balanced"} if head == "classification" else {}
    found = []
    for size, count in ((8, 1), (4, 2), (1, 8)):
        module, data, _ = build(path, model, head, training=more)
        found.append(gradient(module, data, tmp_path, size, count))
    assert found[0].abs().max() > 1e-3
    for other in found[1:]:
        assert torch.allclose(other, found[0], atol=1e-5)


@pytest.mark.parametrize("head", ["classification", "causal"])
def test_the_loss_of_an_evaluation_does_not_depend_on_the_batch_size(
    bert: Path, llama: Path, mixed: Path, lines: Path, tmp_path: Path, head: str
) -> None:
    """# pains/text_serving.md row 8"""
    path, model = (mixed, bert) if head == "classification" else (lines, llama)
    found = []
    for size in (1, 7, 32):
        module, data, _ = build(path, model, head, data={"batch_size": size})
        trainer = Trainer(
            logger=False, enable_progress_bar=False, default_root_dir=tmp_path, seed=0
        )
        found.append(trainer.validate(module, datamodule=data, verbose=False)[0])
    for other in found[1:]:
        for name, value in found[0].items():
            assert other[name] == pytest.approx(value, abs=1e-5)


def test_padding_does_not_change_what_the_model_says(bert: Path, mixed: Path) -> None:
    module, data, _ = build(mixed, bert)
    assert proof.check(module, data) < 1e-5


def test_packed_texts_do_not_see_one_another(llama: Path, lines: Path, tmp_path: Path) -> None:
    """# pains/text_serving.md row 5: proven before the first step, then trained"""
    module, data, options = build(lines, llama, "causal", data={"pack": True, "batch_size": 8})
    assert proof.check(module, data) < 1e-4
    batch = next(iter(data.train_dataloader()))
    assert "attention_mask" not in batch
    assert (batch["position_ids"] == 0).sum() > len(batch["position_ids"])
    assert data.padding() < 1.25
    fit(module, data, options, tmp_path)


def test_a_model_that_mixes_packed_texts_is_refused(llama: Path, lines: Path) -> None:
    """# pains/text_serving.md row 5"""
    module, data, _ = build(lines, llama, "causal", data={"pack": True})
    inner = module.model.forward

    def without_positions(**inputs: Any) -> Any:
        inputs.pop("position_ids", None)
        return inner(**inputs)

    module.model.forward = without_positions
    with pytest.raises(RunError, match="logits of packed texts differ"):
        proof.check(module, data)


def test_greedy_text_is_the_same_alone_and_among_others(llama: Path, lines: Path) -> None:
    """# pains/text_serving.md row 6"""
    module, data, _ = build(lines, llama, "causal")
    prompts = [data.encoder({"text": [t]})["input_ids"][0][:-1] for t in ("1a", "22abab", "7")]
    together = generation.generate(module, prompts, 12)
    assert together == [generation.generate(module, [one], 12)[0] for one in prompts]


def test_metrics_of_a_large_vocabulary_keep_no_logits(llama: Path, lines: Path) -> None:
    """# pains/text_serving.md row 7: what is kept of a text is two numbers"""
    module, data, _ = build(lines, llama, "causal")
    rows, losses, tokens = generation.text_losses(module, data, "test")
    assert losses.shape == tokens.shape == rows.shape == data.parts["test"].shape
    found = module.eval()(data.collate([data.sample(int(rows[0]))]))
    labels = torch.tensor(data.sample(int(rows[0]))["labels"])[1:].long()
    expected = torch.nn.functional.cross_entropy(found[0, :-1], labels, reduction="sum")
    assert losses[0] == pytest.approx(float(expected.detach()), rel=1e-5)


@pytest.mark.parametrize("head", ["classification", "tokens", "causal"])
def test_low_rank_updates_are_saved_with_the_head_and_merged(
    bert: Path, llama: Path, mixed: Path, lines: Path, tmp_path: Path, head: str
) -> None:
    """# pains/text_serving.md rows 9, 11 and 34"""
    file = tmp_path / "tags.conll"
    file.write_text("".join(f"a{n}\tB-x\nb{n}\tO\n\n" for n in range(60)))
    path = {"classification": mixed, "tokens": file, "causal": lines}[head]
    module, data, options = build(
        path, llama if head == "causal" else bert, head,
        training={"tune": "lora", "learning_rate": 1e-2}, model={"lora_rank": 4},
    )  # fmt: skip
    trainer = fit(module, data, options, tmp_path, max_epochs=2)
    learned = {n: p for n, p in module.named_parameters() if ".lora_" in n}
    assert learned
    assert all(p.any() for p in learned.values())
    trainer.save_checkpoint(tmp_path / "model", weights_only=True)
    loaded = TextModel.load_from_checkpoint(tmp_path / "model").eval()
    batch = next(iter(data.test_dataloader()))
    module.eval()
    with torch.no_grad():
        expected = module.logits(batch)
        assert torch.equal(loaded.logits(batch), expected)
    folder.save(module, tmp_path / "hf", data)  # merged, and checked against stored rows
    network, _, _ = folder.load(tmp_path / "hf")
    inputs = {n: batch[n] for n in ("input_ids", "attention_mask")}
    with torch.no_grad():
        assert torch.allclose(network(**inputs).logits, expected, atol=1e-5)


def test_low_rank_updates_without_a_gradient_stop_the_run(
    bert: Path, mixed: Path, tmp_path: Path
) -> None:
    """# pains/text_serving.md row 34"""
    module, data, options = build(mixed, bert, training={"tune": "lora"})
    layers = module.model.base_model.model.bert.encoder
    inner = layers.forward
    layers.forward = lambda *a, **k: _detached(inner(*a, **k))
    with pytest.raises(RunError, match="gets no gradient") as caught:
        fit(module, data, options, tmp_path)
    assert "lora_B" in str(caught.value)


def _detached(output: Any) -> Any:
    output.last_hidden_state = output.last_hidden_state.detach()
    return output


def test_recomputing_activations_gives_the_same_gradients(bert: Path, mixed: Path) -> None:
    """# pains/text_serving.md row 34: with low-rank updates as well"""
    found = []
    for on in (False, True):
        module, data, _ = build(mixed, bert, training={"tune": "lora", "checkpointing": on})
        batch = data.collate([data.sample(int(row)) for row in data.parts["train"][:4]])
        module.train()
        module.training_step(batch, 0)["loss"].backward()
        names = [n for n, p in module.named_parameters() if ".lora_B." in n]
        found.append([module.get_parameter(n).grad for n in names])
    for first, second in zip(*found, strict=True):
        assert first.any()
        assert torch.allclose(first, second, atol=1e-7)


def test_a_frozen_encoder_is_run_once_and_only_the_head_learns(
    bert: Path, moods: Rows, write_jsonl: Write, tmp_path: Path
) -> None:
    module, data, options = build(write_jsonl(moods), bert, training={"tune": "head"})
    before = {n: p.detach().clone() for n, p in module.model.named_parameters()}
    batch = next(iter(data.train_dataloader()))
    assert set(batch) == {"features", "label", "index"}
    plain = data.collate([data.sample(int(row)) for row in batch["index"]])
    module.eval()
    assert torch.allclose(module.logits(batch), module.logits(plain), atol=1e-6)
    fit(module, data, options, tmp_path, max_epochs=2)
    changed = {n for n, p in module.model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {"classifier.weight", "classifier.bias"}


def test_lower_layers_learn_more_slowly(bert: Path, mixed: Path) -> None:
    module, _, _ = build(mixed, bert)
    options = TrainingOptions(learning_rate=1.0, layer_decay=0.5)
    groups = models.parameter_groups(module.model, options)
    rate_of = {id(p): group["lr"] for group in groups for p in group["params"]}
    named = dict(module.model.named_parameters())
    decay_of = {id(p): g["weight_decay"] for g in groups for p in g["params"]}
    assert rate_of[id(named["classifier.weight"])] == 1.0
    assert rate_of[id(named["bert.encoder.layer.1.output.dense.weight"])] == 0.5
    assert rate_of[id(named["bert.encoder.layer.0.output.dense.weight"])] == 0.25
    assert rate_of[id(named["bert.embeddings.word_embeddings.weight"])] == 0.125
    assert decay_of[id(named["classifier.bias"])] == 0.0
    assert len(rate_of) == len(named)


@pytest.mark.parametrize(("shape", "middle"), [("linear", 0.5), ("cosine", 0.5)])
def test_the_rate_rises_and_falls(shape: str, middle: float) -> None:
    schedule = Warmup(110, 10 / 110, shape)
    values = [schedule(step) for step in range(111)]
    assert values[:10] == sorted(values[:10])
    assert values[10] == 1.0
    assert values[60] == pytest.approx(middle)
    assert values[110] == pytest.approx(0.0)


def test_float16_is_refused_where_activations_overflow(
    bert: Path, mixed: Path, tmp_path: Path
) -> None:
    """# pains/text_serving.md row 38"""
    module, data, options = build(mixed, bert)
    module.model.config.model_type = "t5"
    with pytest.raises(ConfigError, match="overflow in float16"):
        fit(module, data, options, tmp_path, precision="16-mixed")


def test_accumulation_of_contrasts_is_warned_of(
    bert: Path, write_jsonl: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """# pains/text_serving.md row 42"""
    rows = [{"text": f"{n} a", "pair": f"{n} b"} for n in range(60)]
    module, data, options = build(
        write_jsonl(rows), bert, "embedding", data={"pair_column": "pair"}
    )
    fit(module, data, options, tmp_path, accumulate_grad_batches=2)
    assert "accumulated batches add no texts to compare with" in capsys.readouterr().err


def test_equal_texts_of_a_batch_are_no_wrong_answers(bert: Path, write_jsonl: Write) -> None:
    """# pains/text_serving.md row 42: of two equal partners neither is counted as wrong"""
    rows = [{"text": f"{n} a", "pair": f"{n} b"} for n in range(60)]
    module, data, _ = build(write_jsonl(rows), bert, "embedding", data={"pair_column": "pair"})
    batch = data.collate([data.sample(0)])
    twice = {name: value.repeat(2, *[1] * (value.ndim - 1)) for name, value in batch.items()}
    assert float(losses.contrastive(module.eval(), twice).detach()) == pytest.approx(0, abs=1e-6)


def test_the_best_epoch_is_kept_and_its_loss_is_the_logged_one(
    bert: Path, mixed: Path, tmp_path: Path
) -> None:
    """# pains/text_serving.md row 37"""
    module, data, options = build(mixed, bert, training={"learning_rate": 3e-3})
    trainer = fit(module, data, options, tmp_path, max_epochs=4)
    keeper = next(c for c in trainer.callbacks if hasattr(c, "best_model_path"))
    best = TextModel.load_from_checkpoint(keeper.best_model_path)
    quiet = Trainer(logger=False, enable_progress_bar=False, default_root_dir=tmp_path)
    found = quiet.validate(best, datamodule=data, verbose=False)[0]
    assert found["val_loss"] == pytest.approx(float(keeper.best_model_score), abs=1e-6)
    kept = sorted(p.name for p in (Path(trainer.run_dir) / "checkpoints").iterdir())
    assert len(kept) <= 2  # the best and the newest


def test_a_resumed_run_ends_as_one_that_was_never_interrupted(
    bert: Path, mixed: Path, tmp_path: Path
) -> None:
    """# pains/text_serving.md row 17: inside an epoch of batches of like length"""

    class Stop(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 11:
                trainer.save_checkpoint(tmp_path / "half")
                trainer.should_stop = True

    more = {"model": {"dropout": 0.1}, "data": {"batch_size": 8}}
    whole, data, options = build(mixed, bert, **more)
    fit(whole, data, options, tmp_path, max_epochs=3)
    half, data, options = build(mixed, bert, **more)
    fit(half, data, options, tmp_path, max_epochs=3, callbacks=[Stop()])
    resumed, data, options = build(mixed, bert, **more)
    trainer = Trainer(
        max_epochs=3, seed=0, default_root_dir=tmp_path, logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[],
    )  # fmt: skip
    trainer.fit(resumed, datamodule=data, ckpt_path=tmp_path / "half")
    assert trainer.global_step > 11
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.slow
def test_workers_warn_of_no_threads(bert: Path, mixed: Path, tmp_path: Path) -> None:
    """# pains/text_serving.md row 16"""
    program = (
        "from renshu_tasks.text import data\n"
        "from renshu_tasks.text.options import *\n"
        "found = data.build(TextOptions(data=DataOptions(path=sys.argv[1], num_workers=2),"
        " model=ModelOptions(name=sys.argv[2])))\n"
        "print(sum(len(batch['index']) for batch in found.train_dataloader()))\n"
    )
    command = [sys.executable, "-c", "import sys\n" + program, str(mixed), str(bert)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert int(done.stdout) == 64
    assert "forked" not in done.stderr


# ---- the folder is the whole model


@pytest.fixture
def saved(bert: Path, moods: Rows, write_jsonl: Write, tmp_path: Path) -> Path:
    module, data, _ = build(write_jsonl(moods), bert)
    folder.save(module, tmp_path / "hf", data)
    return tmp_path / "hf"


def test_a_folder_without_its_head_is_refused(saved: Path) -> None:
    """# pains/text_serving.md row 11"""
    from safetensors.torch import load_file, save_file

    weights = load_file(saved / "model.safetensors")
    kept = {k: v for k, v in weights.items() if "classifier" not in k}
    save_file(kept, saved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="weights of the model are missing") as caught:
        folder.load(saved)
    assert "classifier" in str(caught.value)


def test_stored_rows_tell_changed_weights(saved: Path) -> None:
    """# pains/text_serving.md row 10"""
    from safetensors.torch import load_file, save_file

    weights = load_file(saved / "model.safetensors")
    weights["classifier.bias"] = weights["classifier.bias"] + 0.01
    save_file(weights, saved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="other outputs"):
        folder.load(saved)


def test_tied_weights_survive(llama: Path, lines: Path, tmp_path: Path) -> None:
    """# pains/text_serving.md row 36"""
    module, data, options = build(lines, llama, "causal")
    assert module.model.lm_head.weight is module.model.model.embed_tokens.weight
    trainer = fit(module, data, options, tmp_path)
    trainer.save_checkpoint(tmp_path / "model", weights_only=True)
    loaded = TextModel.load_from_checkpoint(tmp_path / "model").eval()
    assert loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight
    folder.save(module, tmp_path / "hf", data)


def test_a_fine_tune_is_continued_with_its_head_in_the_order_of_the_data(
    saved: Path, moods: Rows, write_jsonl: Write
) -> None:
    config = json.loads((saved / "config.json").read_text())
    assert config["id2label"] == {"0": "bad", "1": "good"}
    swapped = {"classes": ["good", "bad"]}
    first, data, _ = build(write_jsonl(moods), saved)
    second, _, _ = build(write_jsonl(moods), saved, data=swapped)
    batch = next(iter(data.val_dataloader()))
    with torch.no_grad():
        a, b = first.eval().logits(batch), second.eval().logits(batch)
    assert torch.equal(a, b.flip(1))


def test_integrated_gradients_sum_to_the_difference(
    bert: Path, moods: Rows, write_jsonl: Write
) -> None:
    """Sundararajan 2017, completeness."""
    from renshu_tasks.text.attribution import integrated_gradients

    module, data, _ = build(write_jsonl(moods), bert)
    batch = data.collate([data.sample(0)])
    inputs = {n: batch[n] for n in ("input_ids", "attention_mask")}
    shares, difference = integrated_gradients(module.model.eval(), inputs, 1, 1, steps=64)
    assert float(shares.sum()) == pytest.approx(float(difference), rel=0.02, abs=1e-4)


def test_no_text_of_the_test_part_reaches_training_or_a_choice(
    bert: Path, moods: Rows, write_jsonl: Write, tmp_path: Path
) -> None:
    """Other labels in the test part change no weight, no temperature and no threshold."""
    states = []
    for flip in (False, True):
        rows = [row | {"split": "test" if n % 5 == 0 else "train"} for n, row in enumerate(moods)]
        if flip:
            other = {"good": "bad", "bad": "good"}
            rows = [
                row | {"label": other[row["label"]]} if row["split"] == "test" else row
                for row in rows
            ]
        module, data, options = build(write_jsonl(rows, f"{flip}.jsonl"), bert)
        trainer = fit(module, data, options, tmp_path / str(flip))
        parts.finish(module, data, Path(trainer.run_dir))
        states.append(module.state_dict())
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
