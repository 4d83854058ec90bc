"""Wrong input gives one message: what, where, what is allowed, how to mend it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from renshu.errors import ConfigError, DataError, RenshuError
from renshu_tasks.text import data as data_part
from renshu_tasks.text import models
from renshu_tasks.text.options import DataOptions, ModelOptions, TextOptions

Rows = list[dict[str, Any]]
Write = Callable[..., Path]


def refuse(path: Path, model: Path, head: str = "classification", **data: Any) -> RenshuError:
    """The error that building the data gives."""
    options = TextOptions(
        data=DataOptions(path=str(path), **data), model=ModelOptions(name=str(model), head=head)
    )
    with pytest.raises((DataError, ConfigError)) as caught:
        data_part.build(options)
    assert caught.value.exit_code == 2
    return caught.value


def test_an_empty_text(bert: Path, moods: Rows, write_jsonl: Write) -> None:
    rows = [*moods, {"text": "  \t", "label": "good"}]
    file = write_jsonl(rows)
    error = refuse(file, bert)
    assert "empty" in str(error)
    assert "rows.jsonl:121" in str(error)
    assert "on_empty skip" in str(error)
    options = TextOptions(
        data=DataOptions(path=str(file), on_empty="skip"), model=ModelOptions(name=str(bert))
    )
    for _ in range(2):  # read, and from the cache
        found = data_part.build(options)
        assert len(found.rows) == 120
        assert "note: 1 rows without a text are left out (data.on_empty skip)" in found.summary()


def test_a_single_class(bert: Path, moods: Rows, write_jsonl: Write) -> None:
    error = refuse(write_jsonl([row for row in moods if row["label"] == "good"]), bert)
    assert "only one class (good)" in str(error)


def test_labels_as_text_in_one_part_and_as_numbers_in_another(
    bert: Path, moods: Rows, tmp_path: Path
) -> None:
    for part, some in (("train", moods[::2]), ("test", moods[1::2])):
        rows = [row if part == "train" else row | {"label": 1} for row in some]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{part}.jsonl").write_text(text)
    error = refuse(tmp_path, bert)
    assert "the label 1 is a number, others are text" in str(error)
    assert "test.jsonl:1" in str(error)
    assert "train.jsonl:1" in str(error)


def test_a_line_of_two_megabytes(bert: Path, tmp_path: Path) -> None:
    file = tmp_path / "long.csv"
    file.write_text("text,label\nshort,a\n" + "x" * 2_000_000 + ",b\n")
    error = refuse(file, bert)
    assert "longer than 1,000,000 characters" in str(error)
    assert "long.csv:3" in str(error)
    assert "max_chars" in str(error)


def test_bytes_that_are_not_utf8_are_named_with_their_line(bert: Path, tmp_path: Path) -> None:
    file = tmp_path / "latin.csv"
    file.write_bytes("text,label\nfine,a\ncaf\xe9,b\n".encode("latin-1"))
    error = refuse(file, bert)
    assert "byte 0xe9 at position 3 is not utf-8" in str(error)
    assert "line 3" in str(error)
    assert "--data.encoding latin-1" in str(error)


def test_a_row_with_too_many_cells(bert: Path, tmp_path: Path) -> None:
    file = tmp_path / "commas.csv"
    file.write_text("text,label\nwell, yes,a\n")
    error = refuse(file, bert)
    assert "3 cells in a table of 2 columns" in str(error)
    assert "line 2" in str(error)


def test_json_that_is_none(bert: Path, tmp_path: Path) -> None:
    file = tmp_path / "broken.jsonl"
    file.write_text('{"text": "a", "label": "b"}\n{"text": \n')
    assert "line 2" in str(refuse(file, bert))


def test_a_mistyped_column(bert: Path, moods: Rows, write_jsonl: Write) -> None:
    error = refuse(write_jsonl(moods), bert, label_column="lable")
    assert "there is no column 'lable'" in str(error)
    assert "did you mean 'label'?" in str(error)


def test_a_text_in_two_parts(bert: Path, moods: Rows, write_jsonl: Write) -> None:
    rows = [row | {"split": "train"} for row in moods]
    rows += [moods[3] | {"split": "test"}]
    error = refuse(write_jsonl(rows), bert)
    assert "1 texts are in two parts" in str(error)
    assert "allow_overlap" in str(error)


@pytest.mark.parametrize(
    ("tags", "what"),
    [
        (["O", "I-per", "O"], "'I-per' does not follow B-per or I-per but 'O'"),
        (["B-loc", "I-per", "O"], "'I-per' does not follow B-per or I-per but 'B-loc'"),
        (["per", "O", "O"], "'per' is none of IOB2"),
    ],
)
def test_tags_that_break_iob2(bert: Path, tmp_path: Path, tags: list[str], what: str) -> None:
    lines = "a\tB-per\nb\tI-per\n\n" + "".join(f"w{n}\t{tag}\n" for n, tag in enumerate(tags))
    file = tmp_path / "tags.conll"
    file.write_text(lines)
    error = refuse(file, bert, "tokens")
    assert what in str(error)
    assert "tags.conll:4, word" in str(error)


def test_an_unknown_role(llama: Path, write_jsonl: Write) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "asistant", "content": "b"}]
    error = refuse(write_jsonl([{"messages": turns}]), llama, "causal")
    assert "there is no role 'asistant'" in str(error)
    assert "message 2" in str(error)
    assert "did you mean 'assistant'?" in str(error)


def test_answers_that_the_limit_cuts_off(llama: Path, write_jsonl: Write) -> None:
    """# pains/text_serving.md row 4: no row without a supervised token, after truncation"""
    talk = [{"role": "user", "content": "q" * 60}, {"role": "assistant", "content": "a"}]
    rows = [{"messages": [talk[0] | {"content": f"{n}?"}, talk[1]]} for n in range(30)]
    error = refuse(write_jsonl([*rows, {"messages": talk}]), llama, "causal", max_length=40)
    assert "1 rows of the" in str(error)
    assert "have no token to learn from" in str(error)
    assert "rows.jsonl:31" in str(error)


# ---- models


def copied(model: Path, folder: Path) -> Path:
    shutil.copytree(model, folder)
    return folder


def refuse_model(folder: Path | str, **options: Any) -> str:
    chosen = ModelOptions(name=str(folder), **options)
    with pytest.raises(ConfigError) as caught:
        models.load_tokenizer(chosen, models.load_config(chosen))
    return str(caught.value)


def test_a_tokenizer_that_does_not_fit(bert: Path, llama: Path, tmp_path: Path) -> None:
    folder = copied(bert, tmp_path / "mixed")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 50}))
    said = refuse_model(folder)
    assert "the tokenizer does not fit the model" in said
    assert "ends at 49" in said


def test_a_folder_without_weights(bert: Path, tmp_path: Path) -> None:
    folder = copied(bert, tmp_path / "empty")
    (folder / "model.safetensors").unlink()
    assert "the folder has no weights" in refuse_model(folder)


def test_pickled_weights_are_not_opened(bert: Path, tmp_path: Path) -> None:
    folder = copied(bert, tmp_path / "pickled")
    (folder / "model.safetensors").unlink()
    torch.save({"a": torch.zeros(1)}, folder / "pytorch_model.bin")
    said = refuse_model(folder)
    assert "the weights are pickled" in said
    assert "pytorch_model.bin" in said


def test_a_model_that_brings_code(bert: Path, tmp_path: Path) -> None:
    folder = copied(bert, tmp_path / "code")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    said = refuse_model(folder)
    assert "asks for code of its own" in said
    assert "evil.Model" in said


def test_a_name_of_the_hub_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked of the network, and the message says what to do."""
    import socket

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", never)
    said = refuse_model("nobody/no-such-model")
    assert "cannot be loaded" in said
    assert "--model.download true" in said


def test_a_data_set_of_the_hub_without_a_network(
    bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", never)
    options = TextOptions(
        data=DataOptions(path="hub:nobody/no-such-set"), model=ModelOptions(name=str(bert))
    )
    with pytest.raises(ConfigError, match="nothing is fetched unasked") as caught:
        data_part.build(options)
    assert "save_to_disk" in str(caught.value)


def test_a_model_that_lost_its_encoder(bert: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from renshu_tasks.text.options import TrainingOptions

    folder = copied(bert, tmp_path / "torn")
    weights = load_file(folder / "model.safetensors")
    kept = {k: v for k, v in weights.items() if "layer.1." not in k}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    options = ModelOptions(name=str(folder))
    with pytest.raises(ConfigError, match="not the whole model"):
        models.load(options, TrainingOptions(), models.load_config(options), ["a", "b"], 1)


@pytest.mark.parametrize(
    ("section", "values", "what"),
    [
        ("data", {"val_share": 0.0}, "0.0 is out of range"),
        ("data", {"on_empty": "skp"}, "did you mean 'skip'?"),
        ("model", {"head": "causl"}, "did you mean 'causal'?"),
        ("training", {"schedule": "cosin"}, "did you mean 'cosine'?"),
        ("training", {"threshold": 1.5}, "out of range"),
    ],
)
def test_options_out_of_range(section: str, values: dict[str, Any], what: str) -> None:
    from renshu_tasks.text.options import TrainingOptions

    kinds = {"data": DataOptions, "model": ModelOptions, "training": TrainingOptions}
    with pytest.raises(ConfigError) as caught:
        kinds[section](**values)
    assert what in str(caught.value)


def test_heads_refuse_what_does_not_go_with_them() -> None:
    with pytest.raises(ConfigError, match="several labels"):
        TextOptions(data=DataOptions(multi_label=True), model=ModelOptions(head="tokens"))
    with pytest.raises(ConfigError, match="packed for causal"):
        TextOptions(data=DataOptions(pack=True))


@pytest.mark.parametrize("tune", ["head", "lora"])
def test_new_layers_that_would_stay_random(bert: Path, tmp_path: Path, tune: str) -> None:
    """A missing pooler is refused where it would be frozen, and learns where all does."""
    from safetensors.torch import load_file, save_file

    from renshu_tasks.text.options import TrainingOptions

    folder = copied(bert, tmp_path / "unpooled")
    weights = load_file(folder / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "pooler" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})

    def load(name: Path, how: str) -> torch.nn.Module:
        options = ModelOptions(name=str(name))
        training = TrainingOptions(tune=how)
        return models.load(options, training, models.load_config(options), ["a", "b"], 1)

    with pytest.raises(ConfigError, match=r"leave random: bert\.pooler\.dense\.bias"):
        load(folder, tune)
    assert all(one.requires_grad for one in load(folder, "all").parameters())
    assert load(bert, tune) is not None


def test_a_text_without_a_label_takes_no_other_row_s(
    bert: Path, moods: Rows, write_jsonl: Write
) -> None:
    rows = [*moods[:3], moods[3] | {"label": ""}, *moods[4:]]
    error = refuse(write_jsonl(rows), bert, "embedding")
    assert "0 labels (none)" in str(error)
    assert "rows.jsonl:4" in str(error)


def test_a_second_text_that_nobody_mentioned(bert: Path, write_jsonl: Write) -> None:
    rows = [{"sentence1": f"a {n}", "sentence2": f"b {n}", "label": "yn"[n % 2]} for n in range(60)]
    error = refuse(write_jsonl(rows), bert)
    assert "--data.pair_column sentence2" in str(error)
    options = DataOptions(path=str(write_jsonl(rows)), text_column="sentence1")
    found = data_part.build(TextOptions(data=options, model=ModelOptions(name=str(bert))))
    assert "pair" not in found.rows.column_names


def test_a_share_that_equal_folds_cannot_give(bert: Path, moods: Rows, write_jsonl: Write) -> None:
    error = refuse(write_jsonl(moods), bert, test_share=0.4)
    assert "a share of 0.4 cannot be cut" in str(error)
    assert "0.5, or a split column" in str(error)


def test_rows_without_a_group_are_no_group(bert: Path, moods: Rows, write_jsonl: Write) -> None:
    rows = [row | ({"group": f"author {n % 5}"} if n < 20 else {}) for n, row in enumerate(moods)]
    path = write_jsonl([{"group": None} | row for row in rows])
    options = TextOptions(data=DataOptions(path=str(path)), model=ModelOptions(name=str(bert)))
    data = data_part.build(options)
    assert len(set(data.groups.tolist())) == 5 + 100
    assert "note: 100 rows have no group: equal texts of them stay together" in data.summary()


def test_two_columns_of_one_name(bert: Path, tmp_path: Path) -> None:
    file = tmp_path / "twice.csv"
    file.write_text("text,label,text\na,b,c\n", "utf-8")
    assert "two columns have the name 'text'" in str(refuse(file, bert))


@pytest.mark.parametrize("encoding", ["utf-8", "UTF8", "utf_8"])
def test_a_byte_order_mark_is_no_part_of_a_name(
    bert: Path, moods: Rows, tmp_path: Path, encoding: str
) -> None:
    file = tmp_path / "marked.csv"
    lines = ["text,label", *(f"{row['text']},{row['label']}" for row in moods)]
    file.write_text("\n".join(lines), "utf-8-sig")
    data = DataOptions(path=str(file), encoding=encoding)
    options = TextOptions(data=data, model=ModelOptions(name=str(bert)))
    assert data_part.build(options).classes == ["bad", "good"]


def test_an_adapter_without_its_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}", "utf-8")
    (tmp_path / "adapter_model.safetensors").touch()
    assert "merge_and_unload" in refuse_model(tmp_path)


def test_a_template_that_refuses_a_conversation(
    llama: Path, write_jsonl: Write, tmp_path: Path
) -> None:
    template = tmp_path / "strict.jinja"
    template.write_text(
        "{% if messages[0]['role'] == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}",
        "utf-8",
    )
    roles = ("system", "user", "assistant")
    talks = [[{"role": role, "content": f"x{n}"} for role in roles] for n in range(20)]
    file = write_jsonl([{"messages": turns} for turns in talks])
    error = refuse(file, llama, "causal", chat_template=str(template))
    assert "System role not supported" in str(error)
    assert "system, user" in str(error)
