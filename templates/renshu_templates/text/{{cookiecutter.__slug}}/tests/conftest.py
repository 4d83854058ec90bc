"""A tiny model, made here: the tests need no pretrained one and no network."""

from pathlib import Path

import pytest
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS += ["good", "bad", "day", "film", "the", "a", "was", "is", "very"]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a model of one layer that knows a few words."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=32).save_pretrained(folder)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(WORDS), num_hidden_layers=1, **sizes)
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """Texts whose label is the one word that counts."""
    lines = ["text,label"]
    for number in range(120):
        word = "good" if number % 2 else "bad"
        lines.append(f"the film {number} was a very {word} film {'day ' * (number % 7)},{word}")
    file = tmp_path / "reviews.csv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file
