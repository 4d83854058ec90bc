"""Conversations in prediction: the question is read, and the positions suffice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from renshu.errors import DataError
from renshu_tasks.text import data as data_part
from renshu_tasks.text import generation
from renshu_tasks.text import module as parts
from renshu_tasks.text.module import TextModel
from renshu_tasks.text.options import DataOptions, ModelOptions, TextOptions
from renshu_tasks.text.predict import predict


def talk(question: str, *answer: str) -> dict[str, Any]:
    turns = [{"role": "user", "content": question}]
    return {"messages": turns + [{"role": "assistant", "content": one} for one in answer]}


@pytest.fixture
def built(llama: Path, write_jsonl: Callable[..., Path]) -> tuple[TextModel, TextOptions]:
    """An untrained Llama of 128 positions, all of which a text may take."""
    file = write_jsonl([talk(f"{n}?", "yes") for n in range(30)])
    options = TextOptions(
        data=DataOptions(path=str(file), max_length=128),
        model=ModelOptions(name=str(llama), head="causal"),
    )
    return parts.build(options, data_part.build(options)), options


def test_the_reference_is_no_part_of_the_question(
    built: tuple[TextModel, TextOptions], write_jsonl: Callable[..., Path]
) -> None:
    module, options = built
    file = write_jsonl([talk("why?"), talk("why?", "because")], "new.jsonl")
    bare, answered = predict(module, [file], options)
    assert bare["generated"] == answered["generated"]


def test_of_a_long_question_the_end_is_read_and_the_positions_suffice(
    built: tuple[TextModel, TextOptions], write_jsonl: Callable[..., Path]
) -> None:
    module, options = built
    long, other = ("x" * 300 + "y" * 200, "z" * 300 + "y" * 200)
    file = write_jsonl([talk(long), talk(other), talk("why?")], "new.jsonl")
    first, second, short = predict(module, [file], options)
    assert first["generated"] == second["generated"]  # the same last tokens
    assert [row["truncated"] for row in (first, second, short)] == [True, True, False]
    prompt = module.reader.prompt(talk(long)["messages"])
    room = generation.room_for(module, 128)
    kept = generation.tail(prompt, room, module.reader.tokenizer.bos_token_id)
    assert len(kept) == room == 96
    assert kept[0] == prompt[0]
    assert kept[1:] == prompt[-95:]
    tokens = len(module.reader.tokenizer(first["generated"])["input_ids"])
    assert tokens <= 128 - 96 + 1


def test_a_special_token_is_refused_with_its_row(
    built: tuple[TextModel, TextOptions], write_jsonl: Callable[..., Path]
) -> None:
    module, options = built
    file = write_jsonl([talk("why?"), talk("a</s>b")], "new.jsonl")
    with pytest.raises(DataError, match=r"new\.jsonl:2, message 1") as caught:
        list(predict(module, [file], options))
    assert "'</s>'" in str(caught.value)
