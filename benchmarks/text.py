"""Text: speed and quality beside the Hugging Face Trainer, its pipeline, and simple baselines.

`--only NAME` runs one group of rows (several: names joined by commas), since the full run takes
hours. Times are CPU seconds of one process, the contestants in turns; MiniLM-L6 and the tweets are
the embedded ones; Banking77 and WNUT17 are read below $RENSHU_SHARED_DATA.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

import _table
import _text_peers as peers
import renshu
from renshu.cli.main import main as renshu_command
from renshu_tasks.text import data as text_data
from renshu_tasks.text import demo, metrics, models, predict
from renshu_tasks.text import module as text_module
from renshu_tasks.text.batching import (
    LengthBatches,
    length_drift,
    padding_ratio,
    repeated_neighbours,
)
from renshu_tasks.text.options import DataOptions, ModelOptions, TextOptions, TrainingOptions

Rows = Iterable[_table.Row]
TRANSFORMERS = _table.named("transformers")
SKLEARN = _table.named("scikit-learn")
SHARED = Path(os.environ.get("RENSHU_SHARED_DATA", _table.ROOT.parent / "shared" / "data"))
RECIPE = TrainingOptions(learning_rate=peers.RATE, weight_decay=peers.DECAY, warmup=peers.WARMUP)


def embedded(limit: int) -> text_data.TextData:
    """The embedded tweets, `limit` of them for training (0: all)."""
    options = DataOptions(limit=limit, batch_size=peers.BATCH, num_workers=0)
    return text_data.build(TextOptions(data=options, training=RECIPE))


def ids_of(data: text_data.TextData, part: str) -> peers.Ids:
    """Token ids of a part."""
    return data.encoded[data.parts[part].tolist()]["input_ids"]


def pretrained(data: text_data.TextData) -> Any:
    """MiniLM with a new head for the classes of `data`, as every contestant begins."""
    torch.manual_seed(0)
    options = ModelOptions()
    pad = data.encoder.tokenizer.pad_token_id
    return models.load(options, RECIPE, models.load_config(options), data.classes, pad)


# --- order ----------------------------------------------------------------------------------------


def grouped_by_length(lengths: Sequence[int], seed: int) -> list[list[int]]:
    """The Trainer's group_by_length."""
    from transformers.trainer_pt_utils import get_length_grouped_indices

    generator = torch.Generator().manual_seed(seed)
    rows = get_length_grouped_indices(list(lengths), peers.BATCH, generator=generator)
    return [rows[start : start + peers.BATCH] for start in range(0, len(rows), peers.BATCH)]


def order(quick: bool) -> Rows:
    """Padding, and how random the order is, of the whole training part."""
    data = embedded(0)
    lengths = data.lengths[data.parts["train"]]
    batches = LengthBatches(lengths, peers.BATCH, seed=0)
    ours = [list(batches)]
    batches.set_epoch(1)
    ours.append(list(batches))
    theirs = [grouped_by_length(lengths.tolist(), seed) for seed in (0, 1)]
    peer = f"{TRANSFORMERS} group_by_length"
    what = "embedded training texts: padded over real tokens, batches of 32"
    pads = [padding_ratio(lengths, one[0]) for one in (ours, theirs)]
    yield _table.Row(what, "×", pads[0], pads[1], peer, "<= 1.05")
    what = "neighbours that are neighbours again in the next epoch, 1 is fully random order"
    again = [repeated_neighbours(*one) for one in (ours, theirs)]
    yield _table.Row(what, "×", again[0], again[1], peer, "<= peer")
    what = "saw-tooth: correlation of a batch's mean length with that of the batch before"
    drift = [abs(length_drift(lengths, one[0])) for one in (ours, theirs)]
    yield _table.Row(what, "", drift[0], drift[1], peer, "<= 0.1")


# --- training speed -------------------------------------------------------------------------------


def renshu_seconds(data: text_data.TextData, seed: int) -> tuple[float, Any]:
    """CPU seconds of the task's own training for an epoch, and the network."""
    torch.manual_seed(seed)
    module = text_module.build(data.all_options, data)
    trainer = renshu.Trainer(
        max_epochs=1,
        seed=seed,
        gradient_clip_val=peers.CLIP,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    return peers.cpu_seconds(lambda: trainer.fit(module, datamodule=data)), module.model


def trainer_seconds(data: text_data.TextData, seed: int, sampling: str) -> tuple[float, Any]:
    """The same of the Hugging Face Trainer."""
    from transformers import DataCollatorWithPadding

    model, labels = pretrained(data), data.labels[data.parts["train"]].tolist()
    rows = peers.TrainerRows(ids_of(data, "train"), labels)
    collate = DataCollatorWithPadding(data.encoder.tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        seconds = peers.hugging_face_trainer(
            model, rows, collate, Path(folder), sampling=sampling, seed=seed
        )
    return seconds, model


def limit_seconds(data: text_data.TextData, seed: int) -> tuple[float, Any]:
    """The same of a plain loop over as many real tokens in as many rows, without padding."""
    lengths, model = data.lengths[data.parts["train"]], pretrained(data)
    batches = LengthBatches(lengths, peers.BATCH, seed=seed)
    sizes = [(len(batch), int(lengths[batch].sum())) for batch in batches]
    return peers.without_padding(model, ids_of(data, "train"), sizes), model


def contestant(name: str, size: int, seed: int, judged: bool) -> tuple[float, float]:
    """CPU seconds of one contestant, and its accuracy on the validation part where it is judged.

    `size` are the embedded texts to train on; 0 is the long-tailed sample of this seed.
    """
    budget = TAIL["budget"] if name == "budget" else None
    data = embedded(size) if size else long_tailed(seed, budget)
    if name in ("renshu", "budget"):
        seconds, network = renshu_seconds(data, seed)
    elif name == "limit":
        seconds, network = limit_seconds(data, seed)
    else:
        seconds, network = trainer_seconds(data, seed, name)
    return seconds, accuracy(data, network) if judged else 0.0


def contest(names: Sequence[str], size: int, repeats: int, judged: bool) -> dict[str, Any]:
    """(seconds, accuracy) by contestant and repeat; in turns, each in a process of its own.

    In one process the first would pay for what the others find loaded, and leave its settings.
    """
    found: dict[str, Any] = {name: [] for name in names}
    for repeat in range(repeats):
        for name in names:
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                got = pool.submit(contestant, name, size, repeat, judged and name in JUDGED)
                found[name].append(got.result())
    return found


JUDGED = ("renshu", "random")
"""Whose accuracy is compared: ours and the Trainer's default."""


@torch.no_grad()
def accuracy(data: text_data.TextData, network: Any) -> float:
    """Share of the validation part that is right, in %."""
    network.eval()
    right, count = 0, 0
    for batch in data.val_dataloader():
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        right += int((network(**inputs).logits.argmax(-1) == batch["label"]).sum())
        count += len(batch["label"])
    return 100 * right / count


PEERS = {
    "random": f"{TRANSFORMERS} Trainer, default",
    "group_by_length": f"{TRANSFORMERS} Trainer, group_by_length",
    "limit": "a loop over the same tokens without padding",
    "budget": "itself with a budget of tokens",
}


def speed_rows(size: int, goals: dict[str, str], what: str, quick: bool) -> Rows:
    """A row for each peer: the ratio of the CPU seconds, the median of five; then the accuracy."""
    names = {peer: f"{what}, against {PEERS[peer]}: speed" for peer in goals}
    gap = f"{what}: validation accuracy above the Trainer's, mean of 5 seeds"
    if quick:
        for peer, reach in goals.items():
            yield _table.stored(__file__, names[peer], "× as fast", reach)
        if size:
            yield _table.stored(__file__, gap, "points", ">= -0.5")
        return
    found = contest(("renshu", *goals), size, 5, judged=bool(size))
    own = [seconds for seconds, _ in found["renshu"]]
    for peer, reach in goals.items():
        other = [seconds for seconds, _ in found[peer]]
        each = [theirs / ours for theirs, ours in zip(other, own, strict=True)]
        seconds = f"{statistics.median(other):.1f} s and {statistics.median(own):.1f} s"
        yield _table.Row(
            names[peer],
            "× as fast",
            renshu=statistics.median(each),
            peer_version=PEERS[peer],
            reach=reach,
            spread=f"{min(each):.2f} to {max(each):.2f}; {seconds}",
        )
    if size:
        gaps = [o[1] - t[1] for o, t in zip(found["renshu"], found["random"], strict=True)]
        yield _table.Row(
            gap,
            "points",
            renshu=statistics.mean(gaps),
            peer_version=TRANSFORMERS,
            reach=">= -0.5",
            spread=f"{min(gaps):.2f} to {max(gaps):.2f}",
        )


def training(quick: bool) -> Rows:
    """An epoch over 4,096 embedded texts."""
    goals = {"random": ">= 1.6", "group_by_length": ">= 1.0", "limit": ">= 0.92"}
    yield from speed_rows(4096, goals, "training, 4,096 embedded texts", quick)


TAIL = {"texts": 256, "mean": 37.0, "sigma": 1.0, "longest": 512, "budget": 1800}
"""The long-tailed samples: lengths log-normal with this mean and σ, cut at the longest; a budget of
tokens with which an epoch has about as many steps as with batches of 32."""


def long_tailed(seed: int, budget: int | None = None) -> text_data.TextData:
    """Texts of random words that are one token each, of log-normal length."""
    import datasets

    tokenizer = models.load_tokenizer(ModelOptions(), models.load_config(ModelOptions()))
    words = sorted(word for word in tokenizer.get_vocab() if word.isascii() and word.isalpha())
    drawn = np.random.default_rng(seed)
    middle = np.log(TAIL["mean"]) - TAIL["sigma"] ** 2 / 2
    lengths = np.exp(drawn.normal(middle, TAIL["sigma"], TAIL["texts"] + 64))
    lengths = lengths.round().clip(4, TAIL["longest"]).astype(int)
    rows = {
        "text": [" ".join(drawn.choice(words, length - 2)) for length in lengths],
        "label": [f"class {number % 3}" for number in range(len(lengths))],
        "split": ["train"] * TAIL["texts"] + ["val"] * 32 + ["test"] * 32,
    }
    options = DataOptions(batch_size=peers.BATCH, token_budget=budget, num_workers=0, limit=0)
    return text_data.TextData.from_hugging_face(
        datasets.Dataset.from_dict(rows), TextOptions(data=options, training=RECIPE)
    )


def tail(quick: bool) -> Rows:
    """An epoch over a long-tailed sample, another for each repeat."""
    what = "training, long-tailed sample ({texts} texts, mean {mean:.0f} tokens)".format(**TAIL)
    yield from speed_rows(0, {"random": ">= 2.2", "limit": "", "budget": ""}, what, quick)


# --- prediction -----------------------------------------------------------------------------------


def prediction(quick: bool) -> Rows:
    """Texts a file in, a row a text out, against the pipeline."""
    size = 320 if quick else 10_000
    data = embedded(0)
    module = text_module.build(data.all_options, data).eval()
    rows = np.concatenate([data.parts["test"], data.parts["val"]])[:size]
    texts = [" ".join(data.text(row).split()) for row in rows]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        module.model.save_pretrained(folder / "model")
        module.reader.tokenizer.save_pretrained(folder / "model")
        file = folder / "texts.txt"
        file.write_text("\n".join(texts), encoding="utf-8")
        times: dict[str, list[float]] = {"ours": [], "theirs": []}
        for _ in range(1 if quick else 3):
            own = partial(list, predict.predict(module, [file], data.all_options))
            times["ours"].append(peers.cpu_seconds(own))
            times["theirs"].append(peers.pipeline_seconds(folder / "model", texts))
    each = [one / own for one, own in zip(times["theirs"], times["ours"], strict=True)]
    yield _table.Row(
        f"prediction of {size:,} embedded texts, fp32: speed",
        "× as fast",
        renshu=statistics.median(each),
        peer_version=f"{TRANSFORMERS} pipeline(batch_size=32): {times['theirs'][-1]:.1f} s,"
        f" renshu: {times['ours'][-1]:.1f} s",
        reach=">= 1.5",
        spread=f"{min(each):.2f} to {max(each):.2f}",
    )


# --- quality --------------------------------------------------------------------------------------


def trained(folder: Path, name: str, *options: str) -> Path:
    """`renshu train text` with these options; the run's folder."""
    where = ["--trainer.default_root_dir", str(folder), "--trainer.run", name]
    if renshu_command(["train", "text", *where, *options]):
        raise SystemExit(f"renshu train text {' '.join(options)} failed")
    return folder / "runs" / name


def figure(run: Path, name: str) -> tuple[float, str]:
    """A figure of the test part and its 95 % interval."""
    found = json.loads((run / "evaluation" / "test" / "metrics.json").read_text("utf-8"))[name]
    return found["value"], f"{found['low']:.3f} to {found['high']:.3f}"


def over_seeds(options: Sequence[str], names: Sequence[str], seeds: int) -> dict[str, Any]:
    """Each figure for each seed, and the last interval."""
    found: dict[str, Any] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            run = trained(Path(folder), f"seed-{seed}", *options, "--trainer.seed", str(seed))
            for name in names:
                value, found[f"{name} interval"] = figure(run, name)
                found[name].append(value)
    return found


def seed_row(
    what: str, unit: str, found: dict[str, Any], name: str, reach: str, **peer: Any
) -> Any:
    """The mean over the seeds, with their range and a bootstrap interval."""
    values = found[name]
    spread = f"seeds {min(values):.3f} to {max(values):.3f}; 95 %: {found[f'{name} interval']}"
    return _table.Row(what, unit, statistics.mean(values), reach=reach, spread=spread, **peer)


def tweets(quick: bool) -> Rows:
    """The embedded tweets, the whole training part, three seeds."""
    goals = {"accuracy": ">= 0.82", "macro_f1": ">= 0.805"}
    what = "embedded tweets, full training set, test {}, mean of 3 seeds"
    if quick:
        yield from (_table.stored(__file__, what.format(n), "", g) for n, g in goals.items())
        return
    data = embedded(0)
    texts = {part: [data.text(row) for row in data.parts[part]] for part in ("train", "test")}
    truth = {part: data.labels[data.parts[part]] for part in texts}
    said = peers.tfidf(texts["train"], truth["train"], texts["test"], "logistic")
    hits = metrics.classification(truth["test"], said, len(data.classes))
    simple = hits(np.ones((1, len(said))))
    found = over_seeds(["--preset", "full"], list(goals), 3)
    for name, reach in goals.items():
        peer = {"peer": float(simple[name][0]), "peer_version": f"{SKLEARN}: TF-IDF + logistic"}
        yield seed_row(what.format(name), "", found, name, reach, **peer)


def five_minutes(quick: bool) -> Rows:
    """The recipe that runs when nothing is said."""
    what = "embedded tweets, the 5-minute recipe, test accuracy"
    if quick:
        yield _table.stored(__file__, what, "", ">= 0.765")
        return
    yield seed_row(what, "", over_seeds([], ["accuracy"], 1), "accuracy", ">= 0.765")


def banking() -> tuple[Path, dict[str, tuple[list[str], list[str]]]]:
    """The folder, and texts and intents by part."""
    folder, parts = SHARED / "banking77", {}
    for part in ("train", "test"):
        with (folder / f"{part}.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        parts[part] = [row["text"] for row in rows], [row["category"] for row in rows]
    return folder, parts


def vectors(texts: Sequence[str]) -> np.ndarray:
    """Of frozen MiniLM."""
    from transformers import AutoModel, AutoTokenizer

    folder = demo.model_folder()
    ids = AutoTokenizer.from_pretrained(folder)(list(texts), truncation=True)["input_ids"]
    return peers.frozen_vectors(AutoModel.from_pretrained(folder), ids)


def share(said: Sequence[Any], truth: Sequence[Any]) -> float:
    """How many are right."""
    return float(np.mean(np.asarray(said) == np.asarray(truth)))


def banking77(quick: bool) -> Rows:
    """Banking77, official split, three seeds, beside both baselines."""
    what = "Banking77, official split, test accuracy, mean of 3 seeds"
    if quick:
        yield _table.stored(__file__, what, "", ">= 0.94")
        return
    folder, parts = banking()
    (train, intents), (test, truth) = parts["train"], parts["test"]
    svm = share(peers.tfidf(train, intents, test, "svm"), truth)
    yield _table.Row("Banking77, TF-IDF + linear SVM", "", None, svm, SKLEARN)
    frozen = share(peers.logistic(vectors(train), intents, vectors(test)), truth)
    options = ["--data.path", str(folder), "--data.label_column", "category"]
    found = over_seeds([*options, "--trainer.max_epochs", "10"], ["accuracy"], 3)
    peer = {"peer": frozen, "peer_version": f"frozen MiniLM + logistic regression, {SKLEARN}"}
    yield seed_row(what, "", found, "accuracy", ">= 0.94", **peer)


def few_shot(quick: bool) -> Rows:
    """Ten texts an intent of Banking77, three draws."""
    what = "Banking77, 10 texts an intent: test accuracy, mean of 3 draws"
    if quick:
        yield _table.stored(__file__, what, "", "> peer")
        return
    _, parts = banking()
    test, truth = parts["test"]
    ours, theirs, interval = [], [], ""
    with tempfile.TemporaryDirectory() as name:
        for draw in range(3):
            few = _drawn(parts["train"], 10, draw)
            frozen = peers.logistic(
                vectors([t for t, _ in few]), [i for _, i in few], vectors(test)
            )
            theirs.append(share(frozen, truth))
            folder = Path(name) / f"draw-{draw}"
            folder.mkdir()
            _write(folder / "train.csv", few)
            _write(folder / "test.csv", list(zip(test, truth, strict=True)))
            options = ["--data.path", str(folder), "--model.head", "embedding"]
            run = trained(folder, "few", *options, "--trainer.seed", str(draw))
            value, interval = figure(run, "accuracy")
            ours.append(value)
    yield _table.Row(
        what,
        "",
        renshu=statistics.mean(ours),
        peer=statistics.mean(theirs),
        peer_version=f"frozen MiniLM + logistic regression, {SKLEARN}",
        reach="> peer",
        spread=f"{min(ours):.3f} to {max(ours):.3f}; 95 %: {interval}",
    )


def _drawn(rows: tuple[list[str], list[str]], count: int, seed: int) -> list[tuple[str, str]]:
    texts, intents = map(np.array, rows)
    drawn = np.random.default_rng(seed)
    chosen = [drawn.choice(np.flatnonzero(intents == name), count, False) for name in set(intents)]
    return [(str(texts[row]), str(intents[row])) for row in np.concatenate(chosen)]


def _write(file: Path, rows: Sequence[tuple[str, str]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened).writerows([("text", "label"), *rows])


# --- entities -------------------------------------------------------------------------------------


def sentences(file: Path) -> list[tuple[list[str], list[str]]]:
    """Words and tags; of several tags the first."""
    found: list[tuple[list[str], list[str]]] = [([], [])]
    for line in file.read_text("utf-8").splitlines():
        word, *tags = line.split() or [""]
        if not word:
            found.append(([], []))
            continue
        found[-1][0].append(word)
        found[-1][1].append(tags[0].split(",")[0])
    return [one for one in found if one[0]]


def submissions(quick: bool) -> Rows:
    """Our entity F1 on what others handed in at the shared task."""
    published = {"uh_ritual": 0.4186, "sjtu_adapt.txt": 0.4042}
    truth = sentences(SHARED / "wnut17" / "test.conll")
    for name, goal in published.items():
        flat = [tag for _, tags in sentences(SHARED / "wnut17/submissions" / name) for tag in tags]
        said, start = [], 0
        for _, tags in truth:
            said.append(flat[start : start + len(tags)])
            start += len(tags)
        counts = metrics.entity_counts([tags for _, tags in truth], said)
        value = float(metrics.entities(counts)(np.ones((1, len(counts))))["entity_f1"][0])
        what = (
            f"WNUT17, submission {name.partition('.')[0]}: entity F1, published and by our metric"
        )
        row = _table.Row(what, "", value, goal, "WNUT17 shared task", spread=f"{value:.6f}")
        row.reach, row.holds = f"= {goal}", round(value, 4) == goal
        yield row


def entities(quick: bool) -> Rows:
    """MiniLM tuned for WNUT17 by us and by the Trainer's recipe, in the same time."""
    what = "WNUT17, MiniLM tuned, test entity F1, mean of 3 seeds"
    if quick:
        yield _table.stored(__file__, what, "", ">= peer")
        return
    folder = SHARED / "wnut17"
    options = ["--data.path", str(folder), "--model.head", "tokens", "--trainer.max_epochs", "4"]
    found = over_seeds(options, ["entity_f1"], 3)
    theirs = [_entities_by_trainer(folder, seed) for seed in range(3)]
    peer = {"peer": statistics.mean(theirs), "peer_version": f"{TRANSFORMERS} Trainer, 3 epochs"}
    yield seed_row(what, "", found, "entity_f1", ">= peer", **peer)


def _entities_by_trainer(folder: Path, seed: int) -> float:
    """Entity F1 of the token-classification recipe: three epochs, padding in random order."""
    from transformers import (
        AutoModelForTokenClassification,
        AutoTokenizer,
        DataCollatorForTokenClassification,
    )

    tokenizer = AutoTokenizer.from_pretrained(demo.model_folder())
    parts = {part: sentences(folder / f"{part}.conll") for part in ("train", "test")}
    tags = sorted({tag for _, row in parts["train"] for tag in row})
    torch.manual_seed(seed)
    model = AutoModelForTokenClassification.from_pretrained(
        demo.model_folder(), num_labels=len(tags)
    )

    def read(words: list[str], row: list[str]) -> tuple[list[int], list[int], list[int]]:
        one = tokenizer(words, is_split_into_words=True, truncation=True)
        labels, before, firsts = [], None, []
        for place, word in enumerate(one.word_ids()):
            first = word is not None and word != before
            labels.append(tags.index(row[word]) if first and row[word] in tags else -100)
            firsts += [place] if first else []
            before = word
        return one["input_ids"], labels, firsts

    read_train = [read(*row) for row in parts["train"]]
    rows = peers.TrainerRows([ids for ids, _, _ in read_train], [tags for _, tags, _ in read_train])
    collate = DataCollatorForTokenClassification(tokenizer)
    with tempfile.TemporaryDirectory() as name:
        peers.hugging_face_trainer(model, rows, collate, Path(name), seed=seed, epochs=3)
    model.eval()
    said = []
    for words, row in parts["test"]:
        ids, _, firsts = read(words, row)
        with torch.no_grad():
            best = model(input_ids=torch.tensor([ids])).logits[0].argmax(-1)
        found = [tags[best[place]] for place in firsts]
        said.append(found + ["O"] * (len(row) - len(found)))
    counts = metrics.entity_counts([row for _, row in parts["test"]], said)
    return float(metrics.entities(counts)(np.ones((1, len(counts))))["entity_f1"][0])


# --- export ---------------------------------------------------------------------------------------


def exports(quick: bool) -> Rows:
    """What the gate found for both formats, on the test part of the embedded texts."""
    what = "{}: largest difference of a logit in a fresh process, test accuracy equal"
    if quick:
        yield from (
            _table.stored(__file__, what.format(form), "", "<= 1e-05") for form in ("hf", "onnx")
        )
        return
    with tempfile.TemporaryDirectory() as name:
        run = trained(Path(name), "exported", "--preset", "demo")
        for form in ("hf", "onnx"):
            if renshu_command(["export", str(run), "--to", form]):
                raise SystemExit(f"the export to {form} was refused")
            record = json.loads((run / "export" / form / "export.json").read_text("utf-8"))
            accuracy = " = ".join(f"{value:.4f}" for value in record["metric"]["accuracy"])
            yield _table.Row(
                what.format(form),
                "",
                renshu=record["largest_difference"],
                reach="<= 1e-05",
                spread=f"accuracy {accuracy} over {record['rows']:,} rows",
            )


GROUPS: dict[str, Callable[[bool], Rows]] = {
    "order": order,
    "training": training,
    "tail": tail,
    "prediction": prediction,
    "submissions": submissions,
    "tweets": tweets,
    "five_minutes": five_minutes,
    "banking77": banking77,
    "few_shot": few_shot,
    "entities": entities,
    "exports": exports,
}
"""Every group of rows by its name for `--only`."""


def measure(quick: bool, only: Sequence[str] = tuple(GROUPS)) -> Rows:
    """The rows of the groups."""
    for name in only:
        yield from GROUPS[name](quick)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--only", default=",".join(GROUPS))
    chosen, sys.argv[1:] = parser.parse_known_args()
    names = chosen.only.split(",")
    if wrong := [name for name in names if name not in GROUPS]:
        parser.error(f"there is no group {wrong[0]}; there are {', '.join(GROUPS)}")
    _table.main(__file__, partial(measure, only=names))
