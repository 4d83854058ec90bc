"""The folder hf/ of a run: the whole model, as transformers loads it, and rows that check it.

Weights (an adapter is merged in), head, tokenizer, template, classes, pooling, limits, and test
rows with the outputs that were expected of them: they are run again whenever the folder is loaded.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from renshu.errors import CheckpointError
from renshu_tasks.text import lora
from renshu_tasks.text.models import AUTO, last_linear, quiet

if TYPE_CHECKING:
    from renshu_tasks.text.data import TextData
    from renshu_tasks.text.module import TextModel

NAME = "hf"
FILE = "renshu.json"
CLASSIFIER = "classifier.safetensors"
ROWS = 8
"""Rows whose outputs are kept."""

TOLERANCE = 1e-4


def save(module: TextModel, target: Path, data: TextData) -> None:
    """Write the folder; raises CheckpointError if what was written gives other outputs."""
    target.mkdir(parents=True, exist_ok=True)
    mode, part = module.training, "test" if len(data.parts["test"]) else "val"
    module.eval()
    samples = [data.sample(int(row)) for row in data.parts[part][:ROWS]]
    stored = [
        {name: sample[name].tolist() for name in ("input_ids", "token_type_ids") if name in sample}
        for sample in samples
    ]
    network = copy.deepcopy(module.model).cpu()
    classifier = copy.deepcopy(module.classifier).cpu() if module.classifier else None
    # Before anything is merged into it.
    expected = [output(network, row, classifier) for row in stored]
    network = lora.merged(network)
    if module.head == "regression":
        mean, deviation = module.scale.cpu()
        expected = [one * deviation + mean for one in expected]
        _fold_scale(network, module.scale.cpu())
    if module.head in ("classification", "tokens"):
        network.config.id2label = dict(enumerate(module.classes))
        network.config.label2id = {name: k for k, name in enumerate(module.classes)}
        if module.head == "classification":
            kind = "multi_label" if module.multi_label else "single_label"
            network.config.problem_type = f"{kind}_classification"
    with quiet():
        network.save_pretrained(target)
    module.reader.tokenizer.save_pretrained(target)
    if module.head == "embedding":
        _write_pooling(module, target)
    facts = {
        "format": 1,
        "head": module.head,
        "classes": module.classes,
        "multi_label": module.multi_label,
        "max_length": module.max_length,
        "pooling": module.model_options.pooling if module.head == "embedding" else None,
        "temperature": float(module.temperature),
        "thresholds": module.thresholds.tolist(),
        "rows": stored,
        "outputs": [one.tolist() for one in expected],
    }
    (target / FILE).write_text(json.dumps(facts, allow_nan=False), encoding="utf-8")
    module.train(mode)
    load(target)


def _fold_scale(network: nn.Module, scale: Tensor) -> None:
    """Mean and deviation of the numbers become part of the last layer."""
    last = last_linear(network)
    with torch.no_grad():
        last.weight.mul_(scale[1])
        if last.bias is None:
            last.bias = nn.Parameter(scale[:1].clone())
        else:
            last.bias.mul_(scale[1]).add_(scale[0])


def _write_pooling(module: TextModel, target: Path) -> None:
    """Pooling and normalising as sentence-transformers reads them; the few-shot head beside."""
    from safetensors.torch import save_file

    kinds = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken"}
    size = module.model.config.hidden_size
    pooling = {"word_embedding_dimension": size}
    pooling |= {
        f"pooling_mode_{k}": k == kinds[module.model_options.pooling] for k in kinds.values()
    }
    (target / "1_Pooling").mkdir(exist_ok=True)
    (target / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")
    parts = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [
        {
            "idx": number,
            "name": str(number),
            "path": path,
            "type": f"sentence_transformers.models.{kind}",
        }
        for number, (path, kind) in enumerate(parts)
    ]
    (target / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    limit = {"max_seq_length": module.max_length, "do_lower_case": False}
    (target / "sentence_bert_config.json").write_text(json.dumps(limit), encoding="utf-8")
    if module.classifier is not None:
        weights = {
            n: p.detach().cpu().contiguous() for n, p in module.classifier.named_parameters()
        }
        save_file(weights, target / CLASSIFIER)


@torch.no_grad()
def output(
    network: nn.Module, row: dict[str, list[int]], classifier: nn.Module | None = None
) -> Tensor:
    """Of one stored row: logits [K], those of the last token for causal, its mean vector [H].

    With a classifier its logits [K] of that vector stand behind the vector.
    """
    inputs = {name: torch.tensor([ids]) for name, ids in row.items()}
    found = network(**inputs, attention_mask=torch.ones_like(inputs["input_ids"]))
    if not hasattr(found, "logits"):
        vector = found.last_hidden_state[0].mean(0)
        if classifier is None:
            return vector
        return torch.cat([vector, nn.functional.linear(vector, *classifier.parameters())])
    logits = found.logits[0]
    return logits if logits.ndim == 1 else logits[-1]


def load(folder: Path) -> tuple[Any, Any, dict[str, Any]]:
    """(network, tokenizer, facts) of a folder that `save` wrote.

    Raises CheckpointError where a file is missing, the head or any other weight is missing, or the
    stored rows give other outputs than when it was written.
    """
    import transformers

    file = folder / FILE
    if not file.is_file():
        raise CheckpointError("the folder was not written by renshu", where=folder, allowed=FILE)
    facts = json.loads(file.read_text("utf-8"))
    auto = getattr(transformers, AUTO[facts["head"]])
    with quiet():
        network, told = auto.from_pretrained(
        folder, use_safetensors=True, local_files_only=True, trust_remote_code=False,
        dtype=torch.float32, output_loading_info=True,
    )  # fmt: skip
    if missing := sorted(told["missing_keys"]):
        raise CheckpointError(
            f"{len(missing)} weights of the model are missing",
            where=f"{folder}: {', '.join(missing[:5])}",
            mend="write the folder again: renshu train, or copy it whole",
        )
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    classifier = _read_classifier(folder, facts)
    network.eval()
    for number, (row, expected) in enumerate(zip(facts["rows"], facts["outputs"], strict=True)):
        want = torch.tensor(expected)
        worst = float((output(network, row, classifier) - want).abs().max())
        if not worst <= TOLERANCE * max(1.0, float(want.abs().max())):
            raise CheckpointError(
                f"a stored row gives other outputs than when the model was written ({worst:.2g})",
                where=f"{folder}, row {number}",
                allowed=f"a difference up to {TOLERANCE}",
                mend="the weights or the configuration were changed since",
            )
    return network, tokenizer, facts


def _read_classifier(folder: Path, facts: dict[str, Any]) -> nn.Linear | None:
    """The layer that tells classes by vectors; None for a model of another head or of none."""
    from safetensors.torch import load_file

    if facts["head"] != "embedding" or not facts["classes"]:
        return None
    file = folder / CLASSIFIER
    if not file.is_file():
        raise CheckpointError(
            "the head that tells the classes is missing", where=file, mend="copy the folder whole"
        )
    weights = load_file(file)
    found = nn.Linear(weights["weight"].shape[1], len(facts["classes"]))
    found.load_state_dict(weights)
    return found
