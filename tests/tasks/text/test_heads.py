"""Every head from a file to figures, a folder of transformers and predictions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from renshu.cli.table import read_table
from renshu.errors import CheckpointError
from renshu.seeds import seed_everything
from renshu.trainer import Trainer
from renshu_tasks.text import data as data_part
from renshu_tasks.text import folder, generation
from renshu_tasks.text import module as parts
from renshu_tasks.text.data import TextData
from renshu_tasks.text.module import TextModel
from renshu_tasks.text.options import DataOptions, ModelOptions, TextOptions, TrainingOptions
from renshu_tasks.text.predict import predict

Rows = list[dict[str, Any]]
Write = Callable[..., Path]


def train(
    options: TextOptions, run: Path, epochs: int = 6, seed: int = 0
) -> tuple[TextModel, TextData, Path]:
    """As `renshu train` does it: data, model, fit, finish."""
    seed_everything(seed, verbose=False)
    data = data_part.build(options)
    module = parts.build(options, data)
    trainer = Trainer(
        max_epochs=epochs,
        seed=seed,
        default_root_dir=run,
        callbacks=parts.callbacks(options),
        gradient_clip_val=1.0,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
    )
    trainer.fit(module, datamodule=data)
    assert trainer.run_dir is not None
    parts.finish(module, data, trainer.run_dir)
    trainer.save_checkpoint(trainer.run_dir / "model", weights_only=True)
    return module, data, Path(trainer.run_dir)


def options_of(
    path: Path, model: Path, head: str = "classification", **sections: dict[str, Any]
) -> TextOptions:
    return TextOptions(
        data=DataOptions(path=str(path), **sections.get("data", {})),
        model=ModelOptions(name=str(model), head=head, **sections.get("model", {})),
        training=TrainingOptions(**{"learning_rate": 5e-3} | sections.get("training", {})),
    )


def figures(run: Path, split: str = "test") -> dict[str, Any]:
    return json.loads((run / "evaluation" / split / "metrics.json").read_text())


@torch.no_grad()
def alone(module: TextModel, data: TextData, text: str) -> torch.Tensor:
    """The module's logits [1, ...] of one text by itself."""
    ids = np.array(data.encoder({"text": [text]})["input_ids"][0], np.int32)
    return module.eval().logits(data.collate([{"input_ids": ids}]))


def test_classification(bert: Path, moods: Rows, write_jsonl: Write, tmp_path: Path) -> None:
    module, data, run = train(options_of(write_jsonl(moods), bert), tmp_path)
    found = figures(run)
    assert found["accuracy"]["value"] > 0.95  # ends of words tell the classes apart
    assert data.classes == ["bad", "good"]
    # The folder is loaded by transformers as it is, and says what the module says.
    from transformers import pipeline

    pipe = pipeline("text-classification", model=str(run / "hf"), device=-1)
    text = "the tea was lovely"
    logits = alone(module, data, text)
    said = pipe(text)[0]
    best = int(logits.argmax())
    assert said["label"] == data.classes[best] == "good"
    assert said["score"] == pytest.approx(float(logits.softmax(-1)[0, best]), abs=1e-5)


def test_predictions_keep_the_order_of_the_file_and_come_from_the_checkpoint(
    bert: Path, moods: Rows, write_jsonl: Write, tmp_path: Path
) -> None:
    options = options_of(write_jsonl(moods), bert)
    module, data, run = train(options, tmp_path)
    loaded = TextModel.load_from_checkpoint(run / "model")
    file = tmp_path / "new.txt"
    texts = [row["text"] for row in moods] + ["x" * 500]
    file.write_text("\n".join(texts) + "\n")
    rows = list(predict(loaded, [file], options))
    assert [row["id"] for row in rows] == [f"new.txt:{n}" for n in range(1, len(texts) + 1)]
    assert [row["truncated"] for row in rows] == [False] * len(moods) + [True]
    # The same numbers as each text alone, through the trained module.
    for text, row in list(zip(texts, rows, strict=True))[::17]:
        probabilities = module.scaled(alone(module, data, text))[0]
        assert row["p_good"] == pytest.approx(float(probabilities[1]), abs=2e-6)
    table = list(read_table(run / "evaluation/test/predictions.csv"))
    assert len(table) == len(data.parts["test"])


@pytest.mark.slow
def test_several_labels(bert: Path, moods: Rows, write_jsonl: Write, tmp_path: Path) -> None:
    rows = [
        {"text": r["text"], "label": [w for w in ("our", "fine") if w in r["text"]]} for r in moods
    ]
    options = options_of(
        write_jsonl(rows), bert, data={"multi_label": True}, training={"learning_rate": 1e-3}
    )
    module, data, run = train(options, tmp_path, epochs=30)
    fine, our = figures(run)["per_class"]
    assert data.classes == ["fine", "our"]
    assert our["f1"] > 0.95
    assert our["support"] > fine["support"] > 0  # some texts have both labels, some none
    assert module.thresholds.shape == (2,)


def test_pairs(bert: Path, write_jsonl: Write, tmp_path: Path) -> None:
    words = ("cat", "dog", "cow", "hen", "fox", "owl", "bee", "ant", "elk", "yak")
    rows = [
        {"text": f"a {a}", "other": f"a {b}", "label": "same" if a == b else "no"}
        for a in words
        for b in words
    ]
    rows += [row for row in rows if row["label"] == "same"] * 2
    options = options_of(
        write_jsonl(rows), bert, data={"pair_column": "other", "allow_overlap": True}
    )
    _, data, run = train(options, tmp_path, epochs=1)
    batch = next(iter(data.val_dataloader()))
    assert set(batch["token_type_ids"].unique().tolist()) == {0, 1}
    assert figures(run)["samples"] == len(data.parts["test"])


@pytest.mark.slow
def test_regression_in_the_units_of_the_data(
    bert: Path, write_jsonl: Write, tmp_path: Path
) -> None:
    rows = [
        {"text": "o" * n + "x" * m, "label": 1000 + 10 * n} for n in range(1, 25) for m in range(5)
    ]
    module, data, run = train(
        options_of(write_jsonl(rows), bert, "regression"), tmp_path, epochs=12
    )
    found = figures(run)
    assert found["mae"]["value"] < 0.5 * found["baseline_mae"]
    # The scale is part of the folder: transformers gives the data's own unit.
    network, tokenizer, _ = folder.load(run / "hf")
    text = "o" * 12 + "xx"
    with torch.no_grad():
        direct = network(**tokenizer(text, return_tensors="pt")).logits[0, 0]
    assert float(direct) == pytest.approx(float(alone(module, data, text)), rel=1e-5)


def conll(path: Path, sentences: list[list[tuple[str, str]]]) -> Path:
    path.write_text(
        "\n".join("".join(f"{w}\t{t}\n" for w, t in sentence) for sentence in sentences), "utf-8"
    )
    return path


def people() -> list[list[tuple[str, str]]]:
    names = [("Ann", "Lee"), ("Bob", "Ray"), ("Cid", "Fox"), ("Dan", "Poe"), ("Eve", "Orr")]
    verbs = ("met", "saw", "called", "paid", "knew")
    return [
        [(a, "B-person"), (b, "I-person"), (verb, "O"), ("the", "O"), (thing, "O")]
        for a, b in names
        for verb in verbs
        for thing in ("man", "cat", "boss", "crew")
    ]


def test_entities(bert: Path, tmp_path: Path) -> None:
    """# pains/text_serving.md row 35"""
    file = conll(tmp_path / "people.conll", people())
    options = options_of(file, bert, "tokens")
    module, _, run = train(options, tmp_path, epochs=6)
    found = figures(run)
    assert found["entity_f1"]["value"] > 0.9
    text = "  then  Bob Ray met the crew, and Eve Orr!"
    source = tmp_path / "new.txt"
    source.write_text(text + "\n")
    (row,) = predict(module, [source], options)
    entities = json.loads(row["entities"])
    assert entities
    assert all(text[e["start"] : e["end"]] == e["text"] for e in entities)


def chats(count: int = 20) -> Rows:
    """Questions with answers of different lengths that have to be learned by heart."""
    return [
        {
            "messages": [
                {"role": "user", "content": f"{number}?"},
                {"role": "assistant", "content": "abcdefghij"[number % 7 :][: 2 + number % 5]},
            ]
        }
        for number in range(10, 10 + count)
    ]


@pytest.mark.slow
def test_a_chat_model_repeats_20_answers_and_stops_by_itself(
    llama: Path, write_jsonl: Write, tmp_path: Path
) -> None:
    """# pains/text_serving.md row 1: padding is end-of-text, and the end is learned all the same"""
    rows = [row | {"split": part} for part in ("train", "val") for row in chats()]
    options = options_of(
        write_jsonl(rows), llama, "causal", data={"allow_overlap": True, "batch_size": 20}
    )
    module, _, run = train(options, tmp_path, epochs=150)
    assert module.reader.tokenizer.pad_token_id == module.reader.tokenizer.eos_token_id
    prompts = [module.reader.prompt(row["messages"][:1]) for row in chats()]
    answers = generation.generate(module, prompts, 30)
    assert answers == [row["messages"][1]["content"] for row in chats()]
    assert figures(run, "val")["sample_exact_match"] == 1.0


def test_plain_text(llama: Path, tmp_path: Path) -> None:
    file = tmp_path / "lines.txt"
    file.write_text("".join(f"{n} and {n} is {2 * n}\n" for n in range(60)))
    _, data, run = train(options_of(file, llama, "causal"), tmp_path, epochs=3)
    found = figures(run)
    assert found["perplexity"]["value"] == pytest.approx(np.exp(found["loss"]["value"]))
    assert found["perplexity"]["value"] < 40  # of 103 characters, after 3 epochs
    assert all(part.ended_rows == part.rows for part in data.audit.values())


@pytest.mark.slow
def test_vectors_of_pairs(bert: Path, write_jsonl: Write, tmp_path: Path) -> None:
    words = [a + b for a in "bcdfghkl" for b in ("ako", "emi", "osu", "ura", "ine", "oto")]
    rows = [{"text": word, "pair": word.upper()} for word in words]
    options = options_of(
        write_jsonl(rows),
        bert,
        "embedding",
        data={"pair_column": "pair"},
        training={"contrast": 0.1},
    )
    _, _, run = train(options, tmp_path, epochs=20)
    found = figures(run)
    assert found["recall_at_5"]["value"] >= 0.5
    assert found["mrr"]["value"] <= 1


@pytest.mark.slow
def test_few_shot_classification_on_top(
    bert: Path, moods: Rows, write_jsonl: Write, tmp_path: Path
) -> None:
    options = options_of(write_jsonl(moods), bert, "embedding")
    module, data, run = train(options, tmp_path, epochs=4)
    assert figures(run)["accuracy"]["value"] > 0.9
    assert (run / "hf" / "classifier.safetensors").is_file()
    loaded = TextModel.load_from_checkpoint(run / "model").eval()
    batch = next(iter(data.test_dataloader()))
    module.eval()
    assert torch.equal(loaded.logits(batch), module.logits(batch))
    file = run / "hf" / "classifier.safetensors"
    weights = load_file(file)
    save_file(weights | {"bias": weights["bias"] + 1}, file)
    with pytest.raises(CheckpointError, match="a stored row gives other outputs"):
        folder.load(run / "hf")
    file.unlink()
    with pytest.raises(CheckpointError, match="the head that tells the classes is missing"):
        folder.load(run / "hf")


@pytest.mark.parametrize("head", ["classification", "embedding"])
def test_the_report_and_the_folder_of_a_run(
    bert: Path, moods: Rows, write_jsonl: Write, tmp_path: Path, head: str
) -> None:
    from renshu_tasks.text import plots

    _, _, run = train(options_of(write_jsonl(moods), bert, head), tmp_path, epochs=1)
    titles = [section.title for section in plots.sections(run)]
    assert titles[:3] == ["Classes", "Texts", "Confusion"]
    assert {"Mistakes", "Examples", "Calibration", "Abstention"} <= set(titles)
    assert folder.load(run / "hf")[2]["max_length"] == 128
