"""Where texts come from, how they are split, what is cached and what is counted."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from sklearn.model_selection import StratifiedGroupKFold

from renshu.errors import DataError
from renshu_tasks.text import data as data_part
from renshu_tasks.text import normalise, splits
from renshu_tasks.text.batching import padding_ratio
from renshu_tasks.text.data import TextData
from renshu_tasks.text.encode import Encoder
from renshu_tasks.text.options import DataOptions, ModelOptions, TextOptions

Rows = list[dict[str, Any]]
Write = Callable[..., Path]


def build(path: Path | str, model: Path, head: str = "classification", **data: Any) -> TextData:
    return data_part.build(
        TextOptions(
            data=DataOptions(path=str(path), **data), model=ModelOptions(name=str(model), head=head)
        )
    )


def test_every_kind_of_file_holds_the_same_texts(
    bert: Path, moods: Rows, write_jsonl: Write, tmp_path: Path
) -> None:
    rows = [row | {"text": row["text"] + ', "so", it is'} for row in moods]
    found = datasets.Dataset.from_list(rows)
    found.to_csv(tmp_path / "rows.csv")
    found.to_csv(tmp_path / "rows.tsv", sep="\t")
    found.to_parquet(tmp_path / "rows.parquet")
    found.save_to_disk(tmp_path / "saved")
    names = ("rows.csv", "rows.tsv", "rows.parquet", "saved")
    paths = [write_jsonl(rows), *(tmp_path / name for name in names)]
    sets = [build(path, bert) for path in paths]
    for one in sets:
        assert one.rows["text"][:] == [row["text"] for row in rows]
        assert one.classes == ["bad", "good"]
        assert {p: r.tolist() for p, r in one.parts.items()} == {
            p: r.tolist() for p, r in sets[0].parts.items()
        }


def test_parts_and_class_names_of_a_hugging_face_set_are_kept(bert: Path, moods: Rows) -> None:
    names = datasets.ClassLabel(names=["good", "bad"])
    features = datasets.Features({"text": datasets.Value("string"), "label": names})
    parts = {"train": moods[::2], "validation": moods[1::4], "test": moods[3::4]}
    both = datasets.DatasetDict(
        {part: datasets.Dataset.from_list(rows, features=features) for part, rows in parts.items()}
    )
    options = TextOptions(model=ModelOptions(name=str(bert)))
    found = TextData.from_hugging_face(both, options)
    assert found.classes == ["good", "bad"]
    assert {part: len(rows) for part, rows in found.parts.items()} == {
        "train": 60, "val": 30, "test": 30,
    }  # fmt: skip
    assert [found.rows[int(row)]["text"] for row in found.parts["val"]] == [
        row["text"] for row in moods[1::4]
    ]


def test_equal_texts_are_never_in_two_parts(bert: Path, moods: Rows, write_jsonl: Write) -> None:
    rows = [
        *moods,
        *({**row, "text": f"RT @me {row['text'].upper()} http://x.y/z"} for row in moods),
    ]
    found = build(write_jsonl(rows), bert)
    assert normalise.normalise(rows[0]["text"]) == normalise.normalise(rows[120]["text"])
    part_of = {int(row): part for part, some in found.parts.items() for row in some}
    assert all(part_of[row] == part_of[row + 120] for row in range(120))
    assert found.duplicates == {"exact": {"val": 0, "test": 0}, "same": {"val": 0, "test": 0}}


def test_near_equal_texts_between_given_parts_are_counted(
    bert: Path, moods: Rows, write_jsonl: Write
) -> None:
    rows = [row | {"split": "train"} for row in moods]
    rows += [row | {"split": "test", "text": row["text"].upper()} for row in moods[::6]]
    found = build(write_jsonl(rows), bert)
    assert found.duplicates["same"]["test"] == 20
    assert any("but for case" in line for line in found.summary())


@pytest.mark.parametrize(
    ("classes", "groups", "folds"),
    [(2, 1400, 2), (3, 300, 5), (7, 900, 10), (5, 50, 3), (3, 1500, 5)],
)
def test_the_split_is_that_of_scikit_learn(classes: int, groups: int, folds: int) -> None:
    random = np.random.default_rng(classes * folds)
    strata, group = random.integers(0, classes, 1500), random.integers(0, groups, 1500)
    kind = StratifiedGroupKFold(folds, shuffle=True, random_state=7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, expected = next(iter(kind.split(strata, strata, group)))
    found = splits.first_fold(strata, group, folds, 7)
    assert np.flatnonzero(found).tolist() == expected.tolist()


def test_a_limit_keeps_the_shares_of_the_classes() -> None:
    strata = np.repeat([0, 1, 2], [600, 300, 100])
    rows = splits.limit(np.arange(1000), strata, 100, 0)
    assert np.bincount(strata[rows]).tolist() == [60, 30, 10]
    assert splits.limit(np.arange(1000), strata, 100, 0).tolist() == rows.tolist()
    assert splits.limit(np.arange(1000), strata, 100, 1).tolist() != rows.tolist()


def test_texts_are_tokenised_once(
    bert: Path, moods: Rows, write_jsonl: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_jsonl(moods)
    first = build(file, bert)
    calls: list[int] = []
    inner = Encoder.__call__

    def counted(self: Encoder, rows: Any) -> Any:
        calls.append(len(rows["text"]))
        return inner(self, rows)

    monkeypatch.setattr(Encoder, "__call__", counted)
    other = tmp_path / "moved.jsonl"
    other.write_bytes(file.read_bytes())
    again = build(file, bert)
    assert not calls  # the same content, tokenizer and limit
    assert again.encoded["input_ids"][:] == first.encoded["input_ids"][:]
    assert build(other, bert).encoded["input_ids"][:] == first.encoded["input_ids"][:]
    calls.clear()
    build(file, bert, max_length=12)
    assert sum(calls) == 120  # another limit reads them anew


def test_what_is_cut_and_what_carries_a_label_is_said(
    bert: Path, llama: Path, moods: Rows, write_jsonl: Write
) -> None:
    """# pains/text_serving.md row 3"""
    found = build(write_jsonl(moods), bert, max_length=12)
    part = found.audit["train"]
    assert part.rows == part.cut_rows == len(found.parts["train"])
    lengths = [len(row["text"]) + 2 for row in moods]
    lost = sum(lengths[int(row)] - 12 for row in found.parts["train"])
    assert part.cut_tokens == lost
    assert any(f"{lost:,} tokens lost" in line for line in found.summary())
    talks = [
        {"messages": [{"role": "user", "content": f"{n}"}, {"role": "assistant", "content": "ok"}]}
        for n in range(40)
    ]
    chat = build(write_jsonl(talks, "talks.jsonl"), llama, "causal")
    train = chat.audit["train"]
    assert train.labelled_tokens == 3 * train.rows  # o, k and the end
    assert train.ended_rows == train.rows


def test_batches_hold_texts_of_like_length_in_an_order_that_is_new_each_epoch(
    bert: Path, write_jsonl: Write
) -> None:
    """# pains/text_serving.md rows 30 and 31"""
    random = np.random.default_rng(0)
    rows = [
        {"text": f"{n}" + "x" * int(random.lognormal(3, 0.8)), "label": "ab"[n % 2]}
        for n in range(800)
    ]
    found = build(write_jsonl(rows), bert, batch_size=16)
    lengths = found.lengths[found.parts["train"]]
    order = [list(range(len(lengths)))[n : n + 16] for n in range(0, len(lengths), 16)]
    assert found.padding() < 1.1 < padding_ratio(lengths, order)
    sampler = found.train_dataloader().batch_sampler
    first, second = (list(map(tuple, sampler)) for _ in range(2))
    assert first != second
    assert sorted(sum(first, ())) == sorted(sum(second, ())) == list(range(len(lengths)))


def test_a_token_budget_bounds_every_batch(bert: Path, moods: Rows, write_jsonl: Write) -> None:
    found = build(write_jsonl(moods), bert, token_budget=100)
    sizes = [batch["input_ids"].numel() for batch in found.train_dataloader()]
    assert max(sizes) <= 100
    assert len(sizes) < len(found.parts["train"])


def test_padding_is_masked(bert: Path, moods: Rows, write_jsonl: Write) -> None:
    found = build(write_jsonl(moods), bert, bucket=False)
    batch = next(iter(found.val_dataloader()))
    real = batch["attention_mask"].bool()
    assert (batch["input_ids"][~real] == found.encoder.tokenizer.pad_token_id).all()
    assert real.sum(1).tolist() == found.lengths[batch["index"]].tolist()
    assert torch.equal(batch["label"], torch.from_numpy(found.labels[batch["index"].numpy()]))


def test_private_parts_are_hidden() -> None:
    text = "mail ada.l@x-y.org or call +44 20 7946 0958, @ada says; 2024 is a year"
    shown = normalise.mask(text)
    for private in ("ada.l", "7946", "@ada"):
        assert private not in shown
    assert "2024 is a year" in shown


def test_other_data_have_another_fingerprint(bert: Path, moods: Rows, write_jsonl: Write) -> None:
    first = build(write_jsonl(moods), bert).fingerprint()
    same = build(write_jsonl(moods), bert).fingerprint()
    changed = [*moods[:-1], {"text": "our town was latest", "label": "bad"}]
    other = build(write_jsonl(changed), bert).fingerprint()
    assert json.loads(json.dumps(first)) == first == same
    assert first != other


@pytest.mark.nightly
def test_memory_does_not_grow_with_the_file(bert: Path, tmp_path: Path) -> None:
    """50 and 400 MB: memory of the process that is not mapped from files, within 10 %."""
    import subprocess
    import sys

    program = (
        "import sys; from renshu_tasks.text.options import *\n"
        "from renshu_tasks.text import data\n"
        "data.build(TextOptions(data=DataOptions(path=sys.argv[1], cache=sys.argv[2]),"
        " model=ModelOptions(name=sys.argv[3])))\n"
        "status = dict(l.split(':', 1) for l in open('/proc/self/status'))\n"
        "print(int(status['RssAnon'].split()[0]))\n"
    )
    found = []
    for size in (50, 400):
        file = tmp_path / f"{size}.csv"
        with file.open("w") as opened:
            opened.write("text,label\n")
            for number in range(size * 100):
                opened.write(f"{number} {'word number ' * 830},{'ab'[number % 2]}\n")
        command = [sys.executable, "-c", program, str(file), str(tmp_path / "cache"), str(bert)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append(int(done.stdout))
    assert found[1] < 1.1 * found[0]


def test_class_names_are_those_of_the_chosen_column(bert: Path, moods: Rows) -> None:
    """Another column with names of its own, and before, does not name the classes."""
    rows = [{"lang": n % 2, **row} for n, row in enumerate(moods)]
    kinds = {
        "lang": datasets.ClassLabel(names=["en", "de"]),
        "text": datasets.Value("string"),
        "label": datasets.ClassLabel(names=["good", "bad"]),
    }
    one = datasets.Dataset.from_list(rows, features=datasets.Features(kinds))
    options = TextOptions(model=ModelOptions(name=str(bert)))
    found = TextData.from_hugging_face(one, options)
    assert found.classes == ["good", "bad"]
    assert found.rows["label"][:] == [[row["label"]] for row in moods]

    kinds["label"] = datasets.ClassLabel(names=["bad", "good"])
    other = datasets.Dataset.from_list(rows, features=datasets.Features(kinds))
    with pytest.raises(DataError, match="'label' mean bad, good here and good, bad"):
        TextData.from_hugging_face(datasets.DatasetDict(train=one, test=other), options)
