"""Small real models, made in the test: a tokenizer over bytes and words, BERT and Llama."""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", reason="needs renshu[text]")
pytest.importorskip("datasets", reason="needs renshu[text]")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the cache of the user who runs it, or asks the network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True)
def _said_anew() -> Iterator[None]:
    """A message that is said once is said in every test."""
    from renshu import messages

    messages._said.clear()
    yield


def characters(special: list[str], folder: Path, **names: str) -> Any:
    """A tokenizer with a token a printable character, saved and loaded as users would."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: n for n, token in enumerate([*special, *string.printable])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=special[0]))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    core.decoder = decoders.Fuse()
    if "cls_token" in names:
        cls, sep = names["cls_token"], names["sep_token"]
        core.post_processor = processors.TemplateProcessing(
            single=f"{cls} $A {sep}",
            pair=f"{cls} $A {sep} $B:1 {sep}:1",
            special_tokens=[(cls, vocabulary[cls]), (sep, vocabulary[sep])],
        )
    if "bos_token" in names:
        bos = names["bos_token"]
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, vocabulary[bos])]
        )
    inputs = ["input_ids", "attention_mask", *(["token_type_ids"] if "cls_token" in names else [])]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token=special[0],
        model_max_length=128,
        model_input_names=inputs,
        **names,
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a BERT with two layers of 32, over characters."""
    import torch
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("bert")
    tokenizer = characters(
        ["[UNK]", "[PAD]", "[CLS]", "[SEP]"],
        folder,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a Llama with two layers of 64, over characters; its padding is its end-of-text."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("llama")
    tokenizer = characters(["<unk>", "<s>", "</s>"], folder, bos_token="<s>", eos_token="</s>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=128,
        max_position_embeddings=128,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def write_jsonl(tmp_path: Path) -> Callable[..., Path]:
    """`write_jsonl(rows)` writes them as a file and returns its path."""

    def write(rows: list[dict[str, Any]], name: str = "rows.jsonl") -> Path:
        file = tmp_path / name
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        return file

    return write


@pytest.fixture
def moods() -> list[dict[str, str]]:
    """120 short texts of two classes that a small model can tell apart."""
    kinds = {"good": ("fine", "great", "lovely"), "bad": ("awful", "broken", "late")}
    places = ("bus", "tea", "room", "film", "soup", "road", "song", "game", "shop", "town")
    return [
        {"text": f"{start} {place} was {word}", "label": label}
        for label, words in kinds.items()
        for word in words
        for place in places
        for start in ("the", "our")
    ]
