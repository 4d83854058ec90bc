"""Tags belong to words: to those as they were given, and to none that has no token."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from renshu_tasks.text import data as data_part
from renshu_tasks.text import models, tagging
from renshu_tasks.text import module as parts
from renshu_tasks.text.data import TextData
from renshu_tasks.text.module import TextModel
from renshu_tasks.text.options import DataOptions, ModelOptions, TextOptions
from renshu_tasks.text.predict import predict

JOINER = "\u200d"
Built = tuple[TextModel, TextData, TextOptions]


@pytest.fixture
def built(bert: Path, tmp_path: Path, write_jsonl: Callable[..., Path]) -> Built:
    """An untrained tagger whose tokenizer drops joiners; row n + 20 is row n with one."""
    folder = tmp_path / "dropping"
    shutil.copytree(bert, folder)
    file = folder / "tokenizer.json"
    drop = {"type": "Replace", "pattern": {"String": JOINER}, "content": ""}
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | {"normalizer": drop}))
    rows: list[dict[str, Any]] = []
    for gap in ([], [JOINER]):
        for n in range(20):
            words = [f"w{n}", *gap, "Bo", "ran", f"v{n}"]
            rows.append({"words": words, "tags": ["B-x", *("O" * (len(words) - 1))]})
    path = write_jsonl([row | {"split": "train"} for row in rows] + [
        row | {"split": part, "words": [part, *row["words"]], "tags": ["O", *row["tags"]]}
        for part in ("val", "test") for row in rows
    ])  # fmt: skip
    options = TextOptions(
        data=DataOptions(path=str(path)), model=ModelOptions(name=str(folder), head="tokens")
    )
    data = data_part.build(options)
    torch.manual_seed(0)
    return parts.build(options, data), data, options


def test_a_word_without_tokens_shifts_no_tag(built: Built) -> None:
    module, data, _ = built
    last = models.last_linear(module.model)
    torch.nn.init.normal_(last.weight)  # or all tags would be the same
    found = tagging.predicted_tags(module, data, "test")
    rows = data.parts["test"].tolist()
    for plain, gapped in zip(rows[:20], rows[20:], strict=True):
        tags = found[plain]
        assert found[gapped] == [*tags[:2], "O", *tags[2:]]
    assert len({tag for tags in found.values() for tag in tags}) == 2
    assert not any(data.encoded["cut"])


def test_entities_are_the_words_as_given(built: Built, tmp_path: Path) -> None:
    module, _, options = built
    last = models.last_linear(module.model)
    torch.nn.init.zeros_(last.weight)
    with torch.no_grad():
        last.bias.copy_(torch.tensor([float(name == "B-x") for name in module.classes]))
    words = ["@user", JOINER, "U.S.", "don't"]
    file = tmp_path / "new.jsonl"
    file.write_text(json.dumps({"words": words}) + "\n" + json.dumps({"tokens": words}) + "\n")
    for row in predict(module, [file], options):
        found = json.loads(row["entities"])
        assert [one["text"] for one in found] == ["@user", "U.S.", "don't"]
        text = " ".join(words)
        assert all(text[one["start"] : one["end"]] == one["text"] for one in found)
        assert row["truncated"] is False
