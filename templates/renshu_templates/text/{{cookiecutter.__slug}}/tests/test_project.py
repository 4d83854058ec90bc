"""What must stay true whatever is changed: it trains, learns and is loaded again."""

from pathlib import Path

import pytest
import torch
from renshu.errors import ConfigError
from renshu_tasks.text.predict import answers

from {{ cookiecutter.__package }}.config import read_config
from {{ cookiecutter.__package }}.data import DataOptions, load
from {{ cookiecutter.__package }}.model import Classifier, ModelOptions, TrainingOptions
from {{ cookiecutter.__package }}.train import train

SHORT = ["--trainer.max_epochs=10", "--trainer.accelerator=cpu", "--trainer.logger=csv"]


def test_the_parts_share_no_text(tiny: Path, reviews: Path) -> None:
    options = DataOptions(path=str(reviews)), ModelOptions(name=str(tiny)), TrainingOptions()
    parts = [set(map(int, rows)) for rows in load(*options).parts.values()]
    assert all(parts)
    assert len(set.union(*parts)) == sum(map(len, parts)) == 120


def test_it_learns_and_the_model_that_is_kept_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Path, reviews: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    own = [f"--model.name={tiny}", f"--data.path={reviews}", "--data.batch_size=8"]
    run = train(read_config([*SHORT, *own, "--training.learning_rate=0.01"])).run_dir
    assert run is not None
    model = Classifier.load_from_checkpoint(run / "model").eval()
    texts = [f"the film 1 was a very {word} film" for word in ("good", "bad")]
    with torch.no_grad():
        found = answers(model, [{"text": text, "pair": ""} for text in texts])
    assert [answer["predicted"] for answer in found] == ["good", "bad"]
    assert (run / "report.html").is_file()


@pytest.mark.parametrize("flag", ["--data.pth=x", "--trainer.max_epochs=many", "--model.head=tail"])
def test_a_wrong_value_is_refused_before_anything_starts(
    flag: str, tiny: Path, reviews: Path
) -> None:
    with pytest.raises(ConfigError):
        train(read_config([flag, f"--data.path={reviews}", f"--model.name={tiny}"]))
