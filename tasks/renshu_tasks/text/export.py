"""Trained text models as a folder for transformers, and as ONNX; see `renshu.task.Exported`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from renshu.cli.export_onnx import write_onnx
from renshu.errors import ConfigError
from renshu.task import Case, Exported
from renshu_tasks.text import folder as hugging_face
from renshu_tasks.text.encode import IGNORED
from renshu_tasks.text.evaluation import loader_of

if TYPE_CHECKING:
    from renshu_tasks.text.data import TextData
    from renshu_tasks.text.module import Batch, TextModel

UNSEEN = ((1, 1), (1, 9), (3, 7), (17, 40))
"""Numbers of texts and of tokens that the exported model is tried with, and the longest text."""

SENTENCES = (
    "A short one.",
    "Ein längerer Satz mit Umlauten: Größe, Öl, über!",
    "これは日本語の文です。 e-mail: nobody@example.org",
    "🙂🙃 emoji, [SEP] and [MASK], <s> </s>, and  two   spaces",
    "longest " * 2000,
)
"""Nobody's texts, by which what is read is compared; the last is cut to length."""

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
Run = Callable[["Batch"], dict[str, Tensor]]


def to_hf(module: TextModel, data: TextData, folder: Path) -> Exported:
    """Weights, head, tokenizer, template, labels: `from_pretrained` and `pipeline` load it."""
    hugging_face.save(module, folder, data)
    shutil.copyfile(Path(__file__).with_name("exported_hf.py"), folder / "model.py")

    def run(batch: Batch) -> dict[str, Tensor]:
        found = _outputs(module, batch)
        found.pop("probabilities", None)  # transformers knows no temperature
        return found

    return Exported(_cases(module, data, run), _metric(module, data))


class _Texts(nn.Module):
    """Token ids → what the module decides by; pooling and temperature included."""

    def __init__(self, module: TextModel) -> None:
        super().__init__()
        self.module = module

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """int64 [B, L] each → see `_outputs`."""
        batch = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            batch["token_type_ids"] = token_type_ids
        return _outputs(self.module, batch)


def to_onnx(module: TextModel, data: TextData, folder: Path) -> Exported:
    """model.onnx for any number and length of texts, tokenizer.json, model.json.

    Raises ConfigError for causal models: a graph without a cache cannot continue a text.
    """
    if module.head == "causal":
        raise ConfigError(
            "a graph that keeps no cache cannot continue texts", where="--to onnx", mend="--to hf"
        )
    example = _random(module, 2, 8, _has_types(data))
    both = {0: "batch", 1: "length"}
    write_onnx(_Texts(module).eval(), example, dict.fromkeys(example, both), folder)
    shutil.copyfile(Path(__file__).with_name("exported_onnx.py"), folder / "model.py")
    tokenizer = module.reader.tokenizer
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    about = {
        "head": module.head,
        "classes": module.classes,
        "multi_label": module.multi_label,
        "thresholds": module.thresholds.tolist(),
        "temperature": float(module.temperature),
        "max_length": module.max_length,
        "pad_token_id": tokenizer.pad_token_id,
        "pad_token": tokenizer.pad_token,
    }
    text = json.dumps(about, indent=1, ensure_ascii=False)
    (folder / "model.json").write_text(text, encoding="utf-8")
    cases = _cases(module, data, lambda batch: _outputs(module, batch))
    return Exported(cases, _metric(module, data))


def _outputs(module: TextModel, batch: Batch) -> dict[str, Tensor]:
    """`logits` and `probabilities` of what is classified, else the numbers, logits or `vectors`."""
    if module.head == "embedding":
        vectors = module(batch)
        found = {"vectors": vectors}
        if module.classifier is None:
            return found
        logits = module.classifier(vectors)
        return found | {"logits": logits, "probabilities": module.scaled(logits)}
    logits = module.logits(batch)
    if module.head in ("regression", "causal"):
        return {"logits": logits}
    return {"logits": logits, "probabilities": module.scaled(logits)}


@torch.no_grad()
def _cases(module: TextModel, data: TextData, run: Run) -> Iterator[Case]:
    """Noise of several sizes, nobody's sentences, then the evaluated part."""
    for texts, tokens in (*UNSEEN, (2, module.max_length)):
        batch = _random(module, texts, tokens, _has_types(data))
        yield _case(f"texts-{texts}-tokens-{tokens}", batch, run(batch))
    if module.head not in ("tokens", "causal"):  # these read words, or conversations
        read = data.collate([{"input_ids": ids} for ids in _read(module, SENTENCES)])
        if _has_types(data):
            read["token_type_ids"] = torch.zeros_like(read["input_ids"])
        outputs = {"input_ids": read["input_ids"]} | run(read)
        yield _case("sentences", {}, outputs, texts=SENTENCES)
    for number, batch in enumerate(loader_of(data, _part(data))):
        taken = {name: batch[name] for name in _INPUTS if name in batch}
        yield _case(f"evaluated-{number:06d}", taken, run(taken), evaluation=True)


def _case(name: str, inputs: Batch, outputs: dict[str, Tensor], **more: Any) -> Case:
    arrays = [{key: tensor.numpy() for key, tensor in part.items()} for part in (inputs, outputs)]
    return Case(name, arrays[0], arrays[1], **more)


def _metric(module: TextModel, data: TextData) -> Callable[[Iterator[Any]], dict[str, float]]:
    """The figure of the head, over the evaluated part."""

    def metric(outputs: Iterator[Any]) -> dict[str, float]:
        found, count = 0.0, 0
        name = {"regression": "mean squared error", "causal": "loss"}.get(module.head, "accuracy")
        if module.head == "embedding" and module.classifier is None:
            return {}
        for batch, output in zip(loader_of(data, _part(data)), outputs, strict=True):
            values = _measured(module, batch, torch.from_numpy(output["logits"]))
            found, count = found + float(values.double().sum()), count + values.numel()
        return {name: found / count}

    return metric


def _measured(module: TextModel, batch: Batch, logits: Tensor) -> Tensor:
    """Of each item: whether it is right, its squared error, or its loss."""
    if module.head == "regression":
        return (logits - batch["label"]) ** 2
    if module.head == "causal":
        labels = batch["labels"][:, 1:].flatten()
        loss = nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), labels, ignore_index=IGNORED, reduction="none"
        )
        return loss[labels != IGNORED]
    decided = module.decide(module.scaled(logits))
    if module.head == "tokens":
        labels = batch["labels"]
        return (decided == labels)[labels != IGNORED]
    label = batch["label"]
    return (decided == label.bool()).all(1) if module.multi_label else decided == label


def _read(module: TextModel, texts: tuple[str, ...]) -> list[list[int]]:
    """Token ids, by the function that reads texts in training and prediction."""
    return module.reader({"text": list(texts)})["input_ids"]


def _random(module: TextModel, texts: int, tokens: int, types: bool) -> Batch:
    """Token ids of noise, the texts of different length, int64 [texts, tokens] each."""
    drawn = np.random.default_rng(tokens)
    vocabulary = module.model.config.get_text_config().vocab_size
    ids = torch.from_numpy(drawn.integers(0, vocabulary, (texts, tokens)))
    lengths = torch.from_numpy(drawn.integers(1, tokens + 1, (texts, 1)))
    lengths[0] = tokens
    mask = (torch.arange(tokens) < lengths).long()
    batch = {"input_ids": ids * mask, "attention_mask": mask}
    return batch | ({"token_type_ids": torch.zeros_like(ids)} if types else {})


def _has_types(data: TextData) -> bool:
    """Whether the model was trained with token types (pairs of texts)."""
    return "token_type_ids" in data.encoded.column_names


def _part(data: TextData) -> str:
    return "test" if len(data.parts["test"]) else "val"
