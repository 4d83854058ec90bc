"""Where a value comes from, and what is said when it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from renshu.cli import yaml_file
from renshu.cli.main import as_flags, main
from renshu.cli.parser import parse_train
from renshu.errors import ConfigError

pytestmark = pytest.mark.usefixtures("toy")


def write(text: str, name: str = "c.yaml") -> str:
    Path(name).write_text(text)
    return name


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The message of `renshu ARGUMENTS`, which must be wrong input without a traceback."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert captured.out == ""
    return captured.err


# pains/trainer.md row 38: flag > file > preset > default.
@pytest.mark.parametrize(
    ("arguments", "lr"),
    [
        (["toy"], 0.1),
        (["toy", "--preset", "demo"], 0.5),
        (["toy", "--preset", "demo", "--config", "c.yaml"], 0.25),
        (["toy", "--config", "c.yaml", "--preset=demo"], 0.25),
        (["toy", "--training.lr", "1e-3", "--preset", "demo", "--config", "c.yaml"], 0.001),
        (["toy", "--config=c.yaml", "--training.lr=1e-3"], 0.001),
    ],
)
def test_a_flag_wins_over_file_over_preset_over_default(arguments: list[str], lr: float):
    write("training:\n  lr: 0.25\n")
    assert parse_train(arguments).options.training.lr == lr


def test_a_preset_named_in_the_file_stands_below_the_files_own_values():
    write("task: toy\npreset: demo\ntraining: {epochs: 7}\n")
    request = parse_train(["--config", "c.yaml"])
    assert (request.options.training.epochs, request.options.training.lr) == (7, 0.5)
    assert request.trainer["max_epochs"] == 2


def test_the_preset_default_holds_for_every_run_and_below_all_else():
    Path("c.yaml").write_text("trainer: {max_epochs: 7}")
    for arguments, epochs in (
        (["toy"], 5),
        (["toy", "--preset", "demo"], 2),
        (["toy", "--preset", "demo", "--config", "c.yaml"], 7),
        (["toy", "--config", "c.yaml", "--trainer.max_epochs", "9"], 9),
    ):
        assert parse_train(arguments).trainer["max_epochs"] == epochs


# pains/trainer.md row 38
def test_a_printed_configuration_runs_again_unchanged(capsys: pytest.CaptureFixture[str]):
    odd = ["--data.classes", '["yes", "12:30", "1e-3", "null", "é #: x"]', "--data.size", "[3, 4]"]
    more = ["--data.path", "2024", "--data.weights", '{"yes": 0.5}', "--trainer.devices", "[0]"]
    times = ["--trainer.max_time", "10:00:00:00", "--training.lr", "1e-05", "--preset", "demo"]
    assert main(["train", "toy", *odd, *more, *times, "--print_config"]) == 0
    text = capsys.readouterr().out
    first = parse_train(["toy", *odd, *more, *times])
    again = parse_train(["--config", write(text)])
    assert again.options == first.options
    assert again.trainer == first.trainer
    assert again.config == first.config
    assert first.options.data.classes == ["yes", "12:30", "1e-3", "null", "é #: x"]
    assert first.options.data.size == (3, 4)
    assert first.options.data.path == "2024"
    assert first.trainer["max_time"] == "10:00:00:00"
    assert main(["train", "--config", "c.yaml", "--print_config"]) == 0
    assert capsys.readouterr().out == text


def test_every_value_that_is_printed_comes_from_an_option(capsys: pytest.CaptureFixture[str]):
    assert main(["train", "toy", "--print_config"]) == 0
    config = yaml_file.loads(capsys.readouterr().out)
    assert config["task"] == "toy"
    assert config["model"] == {"name": "small", "width": 8}
    assert "hook" not in config["data"], "only Python can give an option of type Any"
    assert "callbacks" not in config["trainer"]


def test_an_options_own_check_is_wrong_input(capsys: pytest.CaptureFixture[str]):
    assert "model.width" in fails(capsys, "train", "toy", "--model.width", "0")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--training.epoch", "--training.epochs"),
        ("--traning.lr", "--training.lr"),
        ("--lr=3", "--training.lr"),
        ("--trainer.max_epoch=3", "--trainer.max_epochs"),
        ("--confg", "--config"),
        ("--model.widht+=1", "--model.width"),
    ],
)
def test_a_mistyped_option_is_told_the_nearest(
    typed: str, meant: str, capsys: pytest.CaptureFixture[str]
):
    message = fails(capsys, "train", "toy", typed, "3")
    assert f"unknown option {typed.partition('=')[0]}" in message
    assert f"did you mean '{meant}'?" in message


def test_a_mistyped_command_or_task_is_told_the_nearest(capsys: pytest.CaptureFixture[str]):
    assert "did you mean 'train'?" in fails(capsys, "trian")
    assert "did you mean 'toy'?" in fails(capsys, "train", "tpy")
    assert "no task is named" in fails(capsys, "train", "--training.lr", "3")
    assert "has no preset 'dmeo'" in fails(capsys, "train", "toy", "--preset", "dmeo")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("training: {lr: fast}", ("training.lr: expected float, got fast", "c.yaml")),
        ("model: {width: 2.5}", ("model.width: expected int, got 2.5", "c.yaml")),
        ("model: {width: true}", ("model.width: expected int, got True", "c.yaml")),
        (
            "model: {name: huge}",
            ("model.name: expected Literal['small', 'large'], got huge", "c.yaml"),
        ),
        ("data: {path: [a, b]}", ("data.path: expected str | null", "c.yaml")),
        ("data: {size: [1, 2, 3]}", ("data.size: expected", "c.yaml")),
        ("trainer: {seed: x}", ("trainer.seed: expected int | null, got x", "c.yaml")),
        ("training: 3", ("training: expected keys and values, got 3", "c.yaml")),
        ("training: {epoch: 3}", ("'training.epoch'", "did you mean 'training.epochs'?")),
        ("traning: {lr: 3}", ("unknown key 'traning'", "did you mean 'training'?")),
        ("lr: 3", ("unknown key 'lr'", "did you mean 'training.lr'?")),
        ("training: {lr: 1, lr: 2}", ("'lr' is given twice", "c.yaml, line 1")),
        ("training: {lr: 1}\ntraining.lr: 2", ("'training.lr' is given twice", "c.yaml")),
        ("task: other", ("the file is for the task 'other', not 'toy'", "c.yaml")),
        ("task: [toy]", ("task: expected a name", "c.yaml")),
        ("- 1", ("must hold keys and values", "c.yaml")),
        ("a: [", ("not readable as YAML", "c.yaml, line")),
        ("", ("must hold keys and values", "c.yaml")),
    ],
)
def test_a_wrong_file_names_key_type_and_file(
    text: str, said: tuple[str, ...], capsys: pytest.CaptureFixture[str]
):
    message = fails(capsys, "train", "toy", "--config", write(text))
    for part in said:
        assert part in message


def test_a_wrong_flag_names_key_and_type(capsys: pytest.CaptureFixture[str]):
    message = fails(capsys, "train", "toy", "--model.width", "wide")
    assert "model.width: expected int, got wide" in message
    assert "where:   --model.width" in message
    assert "mend:    for example --model.width 8" in message
    assert "mend" not in fails(capsys, "train", "toy", "--data.size", "wide"), "it has no default"
    assert "mend" not in fails(capsys, "train", "toy", "--zzzzzz", "3"), "nothing is near"
    assert "model.width: expected int, got no value" in fails(
        capsys, "train", "toy", "--model.width"
    )
    assert "--config: expected one argument" in fails(capsys, "train", "toy", "--config")
    assert "cannot read the file" in fails(capsys, "train", "toy", "--config", "none.yaml")
    assert "stray" in fails(capsys, "train", "toy", "stray")


def test_lists_and_mappings_grow_from_flags():
    grown = ["--data.classes+", "a", "--data.classes+=b", "--data.weights.a", "2"]
    data = parse_train(["toy", *grown]).options.data
    assert (data.classes, data.weights) == (["a", "b"], {"a": 2.0})


def test_the_environment_gives_no_options(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JSONARGPARSE_DEFAULT_ENV", "true")
    for name in ("RENSHU_TRAIN_TOY_MODEL__WIDTH", "MODEL__WIDTH", "RENSHU_MODEL__WIDTH"):
        monkeypatch.setenv(name, "99")
    assert parse_train(["toy"]).options.model.width == 8


def test_a_wrong_default_file_is_refused_before_a_flag_covers_it():
    write("model: {width: wide}")
    with pytest.raises(ConfigError, match=r"model\.width"):
        parse_train(["toy", "--config", "c.yaml", "--model.width", "3"])


@pytest.mark.parametrize(
    ("python", "flags"),
    [
        ('Trainer(run="old") and ckpt_path="last"', "--trainer.run old and --ckpt_path last"),
        (
            "seed: 3 (drawn; Trainer(seed=3) repeats it)",
            "seed: 3 (drawn; --trainer.seed 3 repeats it)",
        ),
        (
            'accelerator="auto", or `renshu doctor`',
            "--trainer.accelerator auto, or `renshu doctor`",
        ),
        ("train_loss=0.25 in runs/seed=3 became NaN", "train_loss=0.25 in runs/seed=3 became NaN"),
        ("--trainer.max_epochs=3 is said already", "--trainer.max_epochs=3 is said already"),
    ],
)
def test_messages_on_the_command_line_name_flags(python: str, flags: str) -> None:
    assert as_flags(python) == flags
