"""`renshu export` of every head: as a folder of transformers and as ONNX, through the gate."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from renshu.cli.export_gate import export
from renshu.errors import ConfigError, RunError
from renshu.seeds import seed_everything
from renshu_tasks.text import data as data_part
from renshu_tasks.text import export as exporter
from renshu_tasks.text import module as parts
from renshu_tasks.text.data import TextData
from renshu_tasks.text.module import TextModel
from renshu_tasks.text.options import DataOptions, ModelOptions, TextOptions, TrainingOptions

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

Rows = list[dict[str, Any]]
Write = Callable[..., Path]
TAGGED = [
    {"tokens": ["Ann", "sees", "Rome", word], "tags": ["B-per", "O", "B-loc", "O"]}
    for word in (f"time{number}" for number in range(40))
]
RATED = [{"text": "x" * n + " y", "label": 10.0 + n} for n in range(1, 31)]
CHATS = [
    {
        "messages": [
            {"role": "user", "content": f"say {number}"},
            {"role": "assistant", "content": str(number) * 3},
        ]
    }
    for number in range(40)
]


def untrained(
    file: Path, model: Path, head: str, tune: str = "all", **data: Any
) -> tuple[TextModel, TextData]:
    """A module as training begins with it, with decisions that an export has to keep."""
    seed_everything(0, verbose=False)
    options = TextOptions(
        data=DataOptions(path=str(file), num_workers=0, **data),
        model=ModelOptions(name=str(model), head=head),
        training=TrainingOptions(tune=tune),
    )
    found = data_part.build(options)
    module = parts.build(options, found).eval()
    module.temperature.fill_(1.6)
    return module, found


CASES: dict[str, Any] = {
    "tokens": (TAGGED, "tokens", {}),
    "regression": (RATED, "regression", {}),
    "embedding": (None, "embedding", {}),
}


# pains/text_serving.md rows 10, 12, 43
@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("form", ["hf", "onnx"])
def test_every_head_passes_the_gate(
    name: str, form: str, bert: Path, moods: Rows, write_jsonl: Write, tmp_path: Path
) -> None:
    rows, head, more = CASES[name]
    module, data = untrained(write_jsonl(rows or moods), bert, head, **more)
    record = export(getattr(exporter, f"to_{form}"), module, data, tmp_path / form, {})
    assert record["largest_difference"] <= 1e-5
    assert record["rows"] == len(data.parts["test"]) + sum(n for n, _ in exporter.UNSEEN) + 2 + (
        0 if head == "tokens" else len(exporter.SENTENCES)
    )


# pains/text_serving.md row 13
def test_onnx_takes_any_number_and_length(
    bert: Path, moods: Rows, write_jsonl: Write, tmp_path: Path
) -> None:
    module, data = untrained(write_jsonl(moods), bert, "classification")
    record = export(exporter.to_onnx, module, data, tmp_path / "onnx", {})
    assert record["largest_difference"] <= 1e-5
    session = onnxruntime.InferenceSession(tmp_path / "onnx/model.onnx")
    for texts, tokens in ((1, 1), (5, 128), (64, 3)):
        ids = torch.randint(4, 100, (texts, tokens))
        mask = torch.ones_like(ids)
        with torch.no_grad():
            expected = module.logits({"input_ids": ids, "attention_mask": mask})
        given = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
        (found,) = session.run(["logits"], given)
        assert np.abs(found - expected.numpy()).max() <= 1e-5
    about = json.loads((tmp_path / "onnx/model.json").read_text())
    assert about["classes"] == ["bad", "good"]
    assert about["temperature"] == pytest.approx(1.6)


# pains/text_serving.md row 36: tied weights; the loss of the answers is the figure
@pytest.mark.slow
def test_a_causal_model_with_tied_weights(llama: Path, write_jsonl: Write, tmp_path: Path) -> None:
    module, data = untrained(write_jsonl(CHATS), llama, "causal")
    record = export(exporter.to_hf, module, data, tmp_path / "hf", {})
    here, there = record["metric"]["loss"]
    assert here == pytest.approx(there, abs=1e-6)
    assert "lm_head.weight" not in load_file(tmp_path / "hf/model.safetensors")
    assert "assistant" in (tmp_path / "hf/chat_template.jinja").read_text()
    with pytest.raises(ConfigError, match="keeps no cache"):
        export(exporter.to_onnx, module, data, tmp_path / "onnx", {})


# pains/text_serving.md rows 9, 11
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft's
def test_an_adapter_and_its_head_are_merged(
    bert: Path, moods: Rows, write_jsonl: Write, tmp_path: Path
) -> None:
    module, data = untrained(write_jsonl(moods), bert, "classification", tune="lora")
    with torch.no_grad():  # B starts at 0, where merging would change nothing
        for name, parameter in module.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    export(exporter.to_hf, module, data, tmp_path / "hf", {})
    names = set(load_file(tmp_path / "hf/model.safetensors"))
    assert "classifier.weight" in names
    assert not any("lora" in name for name in names)


def test_transformers_loads_the_folder_unchanged(
    bert: Path, moods: Rows, write_jsonl: Write, tmp_path: Path
) -> None:
    from transformers import pipeline

    module, data = untrained(write_jsonl(moods), bert, "classification")
    export(exporter.to_hf, module, data, tmp_path / "hf", {})
    classify = pipeline("text-classification", model=str(tmp_path / "hf"), device="cpu")
    (found,) = classify(["our tea was fine"], top_k=None, function_to_apply="none")
    ids = np.array(module.reader({"text": ["our tea was fine"]})["input_ids"][0])
    with torch.no_grad():
        (logits,) = module.logits(data.collate([{"input_ids": ids}]))
    expected = dict(zip(data.classes, logits.tolist(), strict=True))
    assert {one["label"]: one["score"] for one in found} == pytest.approx(expected, abs=1e-5)


# pains/text_serving.md rows 10, 12
def test_other_weights_are_refused(
    bert: Path, moods: Rows, write_jsonl: Write, tmp_path: Path
) -> None:
    module, data = untrained(write_jsonl(moods), bert, "classification")

    def write(*given: Any) -> Any:
        exported = exporter.to_hf(*given)
        file = given[2] / "model.safetensors"
        weights = load_file(file)
        weights["classifier.bias"] = weights["classifier.bias"] + 1e-3
        save_file(weights, file, {"format": "pt"})
        return exported

    with pytest.raises(RunError, match="differs by 0.001, so it is not kept") as caught:
        export(write, module, data, tmp_path / "out" / "hf", {})
    assert caught.value.exit_code == 1
    assert list((tmp_path / "out").iterdir()) == []


# pains/text_serving.md row 32
@pytest.mark.slow
def test_another_tokenizer_is_refused(
    bert: Path, moods: Rows, write_jsonl: Write, tmp_path: Path
) -> None:
    module, data = untrained(write_jsonl(moods), bert, "classification")

    def write(*given: Any) -> Any:
        exported = exporter.to_hf(*given)
        file = given[2] / "tokenizer.json"
        file.write_text(file.read_text().replace('"A":', '"α":'))
        return exported

    with pytest.raises(RunError, match="so it is not kept") as caught:
        export(write, module, data, tmp_path / "hf", {})
    assert "'input_ids'" in str(caught.value.where) or "sentences" in str(caught.value.where)


@pytest.mark.parametrize("name", ["exported_hf", "exported_onnx"])
def test_what_runs_alone_imports_nothing_of_the_training_code(name: str) -> None:
    tree = ast.parse(Path(exporter.__file__).with_name(f"{name}.py").read_text())
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not any("renshu" in module for module in imported)
    assert name == "exported_hf" or not {"torch", "transformers"} & imported
