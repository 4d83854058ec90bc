"""One function reads texts: limits, special tokens, conversations, words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from renshu.errors import DataError
from renshu_tasks.text.encode import IGNORED, Encoder, tokenizer_from, words_of

CHATML = (
    "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)
TALK = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "1+1?"},
    {"role": "assistant", "content": "2"},
    {"role": "user", "content": "sure?"},
    {"role": "assistant", "content": " yes "},
]


def encoder(folder: Path, head: str, limit: int = 128, **more: object) -> Encoder:
    return Encoder(AutoTokenizer.from_pretrained(folder), head, limit, **more)


def test_what_the_limit_cuts_off_is_counted(bert: Path) -> None:
    """# pains/text_serving.md row 3"""
    found = encoder(bert, "classification", 10)({"text": ["abc", "a" * 30]})
    assert [len(ids) for ids in found["input_ids"]] == [5, 10]
    assert found["cut"] == [0, 30 + 2 - 10]
    assert found["ended"] == [True, False]


def test_special_tokens_in_a_text_are_ordinary_characters(bert: Path) -> None:
    reader = encoder(bert, "classification")
    tokenizer = reader.tokenizer
    (ids,) = reader({"text": ["a[SEP]b"]})["input_ids"]
    assert ids.count(tokenizer.sep_token_id) == 1  # the one at the end
    assert tokenizer.decode(ids[1:-1]) == "a[SEP]b"


@pytest.mark.parametrize("template", [None, CHATML])
def test_exactly_the_answers_carry_labels(llama: Path, template: str | None) -> None:
    """# pains/text_serving.md row 4, row 33: spans by characters, no marks in the template"""
    reader = encoder(llama, "causal")
    if template:
        reader.tokenizer.chat_template = template
    ids, labels = reader.chat(TALK)
    runs = [reader.tokenizer.decode(run) for run in _runs(labels)]
    assert runs == ["2</s>", " yes </s>"]
    assert len(ids) == len(labels)


def _runs(labels: list[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    before = IGNORED
    for label in labels:
        if label != IGNORED:
            if before == IGNORED:
                runs.append([])
            runs[-1].append(label)
        before = label
    return runs


def test_a_template_without_an_end_gets_one(llama: Path) -> None:
    """# pains/text_serving.md row 1"""
    reader = encoder(llama, "causal")
    reader.tokenizer.chat_template = (
        "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    ids, labels = reader.chat(TALK)
    assert ids[-1] == labels[-1] == reader.tokenizer.eos_token_id


def test_there_is_one_begin_of_text_in_training_and_in_a_prompt(llama: Path) -> None:
    """# pains/text_serving.md row 32: the ids of a prompt are those that training began with"""
    reader = encoder(llama, "causal")
    bos = reader.tokenizer.bos_token_id
    ids, labels = reader.chat(TALK)
    prompt = reader.prompt(TALK[:-1])
    assert ids.count(bos) == prompt.count(bos) == 1
    assert ids[: len(prompt)] == prompt
    assert labels[len(prompt)] != IGNORED
    (plain,) = reader({"text": ["abc"]})["input_ids"]
    assert plain.count(bos) == 1
    assert plain[-1] == reader.tokenizer.eos_token_id


def test_a_template_that_rewrites_earlier_turns_is_refused(llama: Path) -> None:
    reader = encoder(llama, "causal")
    reader.tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}{{ messages|length }}{{ m['content'] }}{% endfor %}"
    )
    with pytest.raises(DataError, match="changes earlier turns"):
        reader.chat(TALK)


def test_a_message_cannot_end_its_own_turn(llama: Path) -> None:
    turns = [{"role": "user", "content": "x</s>y"}, {"role": "assistant", "content": "z"}]
    with pytest.raises(DataError, match="special token"):
        encoder(llama, "causal").chat(turns)


def test_the_first_token_of_a_word_carries_its_tag(bert: Path) -> None:
    """# pains/text_serving.md row 35"""
    reader = encoder(bert, "tokens", classes=["O", "B-x"])
    found = reader({"words": [["ab", "c"]], "tags": [["B-x", "O"]]})
    assert found["labels"] == [[IGNORED, 1, IGNORED, 0, IGNORED]]


@pytest.mark.parametrize("kind", ["wordpiece", "byte-level", "metaspace"])
def test_words_are_found_again_whatever_the_tokenizer(kind: str) -> None:
    """# pains/text_serving.md row 35: as BERT, RoBERTa and XLM-R cut words into pieces"""
    reader = Encoder(_trained(kind), "tokens", 64, classes=["O", "B-x"])
    text = "the  Unbelievable Zoë's zebra"
    words, spans = words_of(text)
    found = reader({"words": [words]})
    (places,) = found["words_at"]
    assert list(places) == list(range(len(words)))  # every word has its first piece
    assert sorted(places.values()) == list(places.values())
    assert [text[a:b] for a, b in spans] == words
    tagged = reader({"words": [words], "tags": [["B-x"] * len(words)]})
    assert sum(label != IGNORED for label in tagged["labels"][0]) == len(words)


def _trained(kind: str) -> object:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    model, before, trainer = {
        "wordpiece": (
            models.WordPiece(unk_token="[UNK]"),
            pre_tokenizers.BertPreTokenizer(),
            trainers.WordPieceTrainer(vocab_size=90, special_tokens=["[UNK]", "[PAD]"]),
        ),
        "byte-level": (
            models.BPE(unk_token="[UNK]"),
            pre_tokenizers.ByteLevel(add_prefix_space=True),
            trainers.BpeTrainer(
                vocab_size=300,
                special_tokens=["[UNK]", "[PAD]"],
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                show_progress=False,
            ),
        ),
        "metaspace": (
            models.Unigram(),
            pre_tokenizers.Metaspace(),
            trainers.UnigramTrainer(
                vocab_size=90,
                special_tokens=["[UNK]", "[PAD]"],
                unk_token="[UNK]",
                show_progress=False,
            ),
        ),
    }[kind]
    core = Tokenizer(model)
    core.pre_tokenizer = before
    words = ["the believable zebra and Zoë's un able thing"] * 20
    core.train_from_iterator(words, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]", pad_token="[PAD]")


def test_words_stand_where_they_are_said_to() -> None:
    text = " Don't stop,\tÉmile — 日本 😀!"
    words, spans = words_of(text)
    assert [text[a:b] for a, b in spans] == words
    assert "Émile" in words
    assert "😀" in words


def test_mixed_languages_and_emoji_survive(bert: Path) -> None:
    texts = ["héllo 😀", "日本語のテキスト", "مرحبا", "👩‍👩‍👧"]
    found = encoder(bert, "classification")({"text": texts})
    assert all(len(ids) > 2 for ids in found["input_ids"])


def test_the_tokenizer_comes_back_from_its_files(llama: Path) -> None:
    reader = encoder(llama, "causal")
    files = json.loads(json.dumps(reader.files()))
    again = Encoder(tokenizer_from(files), "causal", 128)
    assert again.chat(TALK) == reader.chat(TALK)


def test_a_question_with_a_special_token_is_refused_as_in_training(llama: Path) -> None:
    with pytest.raises(DataError, match=r"special token '</s>'") as caught:
        encoder(llama, "causal").prompt([{"role": "user", "content": "a</s>b"}])
    assert "message 1" in str(caught.value)


def test_an_empty_partner_is_read_alike_alone_and_among_others(bert: Path) -> None:
    reader = encoder(bert, "classification")
    rows = {"text": ["ab", "cd"], "pair": ["", "x"]}
    among = reader(rows)["input_ids"][0]
    assert reader({"text": ["ab"], "pair": [""]})["input_ids"][0] == among
    assert reader({"text": ["ab"]})["input_ids"][0] != among  # a text of no pair
