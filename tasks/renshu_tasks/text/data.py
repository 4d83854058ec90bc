"""The data of the text task: found, checked, split, tokenised once and loaded."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset, Features, List, Value
from torch import Tensor
from torch.utils.data import DataLoader

from renshu.data import DataModule
from renshu.errors import ConfigError, DataError, near
from renshu.messages import say
from renshu_tasks.text import audit, labels, models, sources, splits, table
from renshu_tasks.text.batching import LengthBatches, padding_ratio
from renshu_tasks.text.defaults import Defaults, describe_device, resolve
from renshu_tasks.text.demo import FIVE_MINUTES
from renshu_tasks.text.encode import IGNORED, Encoder, read_template
from renshu_tasks.text.options import TextOptions
from renshu_tasks.text.packing import PackedBatches, Packing
from renshu_tasks.text.samples import Encoded, Padding
from renshu_tasks.text.splits import Rows

if TYPE_CHECKING:
    from renshu_tasks.text.module import TextModel
    from renshu_tasks.text.sources import Source

_UNEQUAL = 1.5  # largest class by smallest, from which that is worth a line


def build(options: TextOptions) -> TextData:
    """The data that the options name, checked, split and summed up on the terminal.

    Raises DataError or ConfigError, with the file, row or option at fault.
    """
    data = TextData(sources.find(options.data), options)
    for line in data.summary():
        say(line, once=True)
    return data


class TextData(DataModule):
    """Texts with what is to be learned, in a training, a validation and (unless asked without) a
    test part.

    Everything is found out when it is made: rows that cannot be used, the parts, the classes, the
    token ids and what the limit cuts off. A batch is a dict: input_ids and attention_mask int64
    [B, L], index int64 [B] (row in the source), and by head label int64 [B] or float32 [B, K]
    (classification), float32 [B] (regression), labels int64 [B, L] (tokens, causal).

    Attributes:
        rows: the source's rows, memory-mapped; see `table.tabulate`.
        encoded: their token ids, memory-mapped: the same numbers of rows.
        encoder: the function that made them.
        classes: names of the classes or tags; a label is a position in this list.
        labels: int64 [N] or float32 [N, K] or [N]; None for tokens and causal.
        parts: rows by part: "train", "val", "test".
        audit: what each part holds after truncation.
        duplicates: rows of val and test that are in an earlier part, exactly and normalised.
        notes: what was left out or decided, a sentence each.
    """

    def __init__(self, source: Source, options: TextOptions) -> None:
        super().__init__()
        self.where, self.head, self.all_options = source.where, options.model.head, options
        self.options = options.data
        self.notes: list[str] = []
        self.features: Tensor | None = None
        self.rows, empty = table.tabulate(source, self.options, self.head)
        if empty:
            self.notes.append(f"{empty:,} rows without a text are left out (data.on_empty skip)")
        if not len(self.rows):
            raise DataError("there are no texts", where=self.where)
        names, numbers, offsets = self._names()
        self.groups = self._groups()
        strata = self._strata(numbers, offsets)
        self.parts = self._split(strata, embedded=self.options.path is None)
        self.duplicates = self._duplicates()
        self.classes: list[str] = []
        if names:
            order = table.label_names(source, self.options, self.head)
            self.classes = labels.find_classes(
                *(names, numbers, offsets, self.parts, self.options, order, self.rows),
                where=self.where,
            )
        self.labels = self._labels(names, numbers, offsets)
        self.encoder = self._make_encoder()
        self.encoded = self._encode()
        self.audit = audit.audit(self.encoded, self.parts, self.where, self.rows)
        self.lengths = torch.from_numpy(audit.column(self.encoded, "length").astype(np.int64))

    @classmethod
    def from_hugging_face(cls, dataset: Any, options: TextOptions) -> TextData:
        """From a `datasets.Dataset` or `DatasetDict`."""
        return cls(sources.from_hugging_face(dataset, "data set"), options)

    # ---- loaders

    def train_dataloader(self) -> DataLoader[Any]:
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader("val", shuffle=False)

    def test_dataloader(self) -> DataLoader[Any]:
        return self._loader("test", shuffle=False)

    def predict_dataloader(self) -> DataLoader[Any]:
        return self._loader("test" if len(self.parts["test"]) else "val", shuffle=False)

    def _loader(self, part: str, shuffle: bool) -> DataLoader[Any]:
        self._require(part)
        rows = self.parts[part]
        arguments: dict[str, Any] = {"batch_size": self.batch_size, "shuffle": shuffle}
        budget = self.options.token_budget
        if self.options.bucket or budget:
            batches = LengthBatches(
                self.lengths[rows], None if budget else self.batch_size, budget, shuffle=shuffle
            )
            arguments = {"batch_sampler": batches}
        collate: Any = self.collate
        if self.options.pack and shuffle:
            length = self.encoder.max_length
            each = budget or self.batch_size * float(self.lengths[rows].double().mean())
            packed = PackedBatches(self.lengths[rows], max(1, round(each / length)), length)
            arguments = {"batch_sampler": packed}
            collate = Packing(self.encoder.tokenizer.pad_token_id, length)
        workers = self.num_workers
        if workers:  # texts are read already; a fork would warn of the threads that did it
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        return DataLoader(
            self.samples(part),
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=collate,
            **arguments,
        )

    def plain_loader(self, part: str) -> DataLoader[Any]:
        """All samples of a part in a fixed order, without workers."""
        batches = LengthBatches(self.lengths[self.parts[part]], self.batch_size, shuffle=False)
        return DataLoader(self.samples(part), batch_sampler=batches, collate_fn=self.collate)

    def samples(self, part: str) -> Encoded:
        """The samples of "train", "val" or "test"."""
        return Encoded(self.encoded, self.parts[part], self.labels, self.features)

    def sample(self, row: int) -> dict[str, Any]:
        """The sample of one row of the source."""
        return Encoded(self.encoded, np.array([row]), self.labels)[0]

    @property
    def collate(self) -> Padding:
        """Samples → a batch."""
        return Padding(self.encoder.tokenizer.pad_token_id)

    def use_features(self, module: TextModel) -> None:
        """Run the frozen encoder over every text once; batches then hold what its head gets."""
        from renshu_tasks.text.frozen import features

        self.features = features(module, self)

    @cached_property
    def defaults(self) -> Defaults:
        """What the table says for this device and so many texts."""
        return resolve(describe_device(), len(self.parts["train"]))

    @property
    def batch_size(self) -> int:
        chosen = self.options.batch_size
        return self.defaults.batch_size if chosen is None else chosen

    @batch_size.setter
    def batch_size(self, value: int) -> None:
        self.options = dataclasses.replace(self.options, batch_size=value)  # checks it

    @property
    def num_workers(self) -> int:
        chosen = self.options.num_workers
        return self.defaults.num_workers if chosen is None else chosen

    # ---- what is known of the data

    @property
    def class_counts(self) -> dict[str, dict[str, int]]:
        """Texts by part and class; of tokens: words by part and tag."""
        return {part: self._count(rows) for part, rows in self.parts.items()}

    def class_weights(self) -> list[float]:
        """[K] from the training part: N / (K × texts of the class), mean 1 a sample.

        For multi-label data the weight of a class's positives: texts without / with it.
        """
        counts = np.array(list(self._count(self.parts["train"]).values()), dtype=np.float64)
        total = len(self.parts["train"])
        if self.options.multi_label:
            return ((total - counts) / counts).tolist()
        return (counts.sum() / (len(counts) * counts)).tolist()

    def scale(self) -> tuple[float, float]:
        """Mean and deviation of the training part's numbers; 0 and 1 where there are none."""
        if self.head != "regression" or self.labels is None:
            return 0.0, 1.0
        values = self.labels[self.parts["train"]].astype(np.float64)
        if values.std() == 0:
            raise DataError("all numbers are equal", where=self.where, allowed="two or more values")
        return float(values.mean()), float(values.std())

    def padding(self) -> float:
        """Padded over real tokens of an epoch of training; 1 is no padding."""
        lengths = self.lengths[self.parts["train"]]
        loader = self.train_dataloader()
        with torch.random.fork_rng(devices=[]):
            batches = list(loader.batch_sampler)
        if not isinstance(loader.collate_fn, Packing):
            return padding_ratio(lengths, batches)
        rows = [loader.collate_fn.rows(lengths[batch].tolist()) for batch in batches]
        widths = [
            max(sum(lengths[batch][row]) for row in some)
            for batch, some in zip(batches, rows, strict=True)
        ]
        padded = sum(len(some) * int(width) for some, width in zip(rows, widths, strict=True))
        return padded / int(lengths.sum())

    def text(self, row: int) -> str:
        """A row's text as it is shown: words and messages joined."""
        found = self.rows[int(row)]
        if self.head == "tokens":
            return " ".join(found["words"])
        if self.head == "causal":
            return found["text"] or "\n".join(
                f"{turn['role']}: {turn['content']}" for turn in json.loads(found["messages"])
            )
        return found["text"] + (f" | {found['pair']}" if found.get("pair") else "")

    def fingerprint(self) -> dict[str, Any]:
        """By part: rows, bytes, and SHA-256 over every id, text's hash, partner and label."""
        texts = ("part", "group", "same", "text", "words")
        columns = [name for name in self.rows.column_names if name not in texts]
        found = {}
        for part, rows in self.parts.items():
            total, size = hashlib.sha256(), 0
            chosen = self.rows.select(rows).select_columns(columns)
            for batch in chosen.iter(batch_size=1000):
                content = json.dumps(batch).encode()
                total.update(content)
                size += len(content)
            found[part] = {"files": len(rows), "bytes": size, "sha256": total.hexdigest()}
        return found

    def summary(self) -> list[str]:
        """Source, parts, what was cut, imbalance, duplicates, decisions: a line each."""
        sizes = ", ".join(f"{part} {len(rows):,}" for part, rows in self.parts.items())
        unit = "tokens" if self.head in ("tokens", "causal") else "rows"
        lines = [f"{self.where}: {sum(map(len, self.parts.values())):,} texts ({sizes})"]
        lines += [part.describe(name, unit) for name, part in self.audit.items()]
        if self.classes:
            counts = self.class_counts["train"]
            few, many = min(counts.values()), max(counts.values())
            said = f"{len(self.classes)} classes"
            if many >= _UNEQUAL * few:
                said += f"; imbalance in training {many / few:.1f} (largest {many}, smallest {few})"
            lines.append(said)
        return lines + [f"note: {note}" for note in self.notes]

    # ---- how it is found out

    def _names(self) -> tuple[list[str], np.ndarray, np.ndarray]:
        column = {"classification": "label", "embedding": "label", "tokens": "tags"}.get(self.head)
        if column is None:
            return [], np.zeros(0, np.int64), np.zeros(len(self.rows) + 1, np.int64)
        if self.head == "tokens":
            labels.check_tags(self.rows, self.where)
        return labels.names_of(self.rows, column)

    def _groups(self) -> np.ndarray:
        """Int64 [N]: rows that belong together, by the group column, else by the normalised text.

        A row without a group has that of its text alone.
        """
        same = np.unique(audit.column(self.rows, "same"), return_inverse=True)[1]
        named = self.rows.data.table.column("group")
        if named.null_count == len(self.rows):
            return same
        codes = named.combine_chunks().dictionary_encode()
        if named.null_count:
            said = f"{named.null_count:,} rows have no group: equal texts of them stay together"
            self.notes.append(said)
        groups = np.asarray(codes.indices.fill_null(-1), dtype=np.int64)
        return np.where(groups < 0, len(codes.dictionary) + same, groups)

    def _strata(self, numbers: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Int64 [N]: the class of a row; of several labels the rarest, 0 where there is none."""
        if self.head == "tokens" or not len(numbers):
            return np.zeros(len(self.rows), np.int64)
        counts = np.bincount(numbers)
        rarity = np.argsort(np.argsort(counts, kind="stable"), kind="stable")
        rank = np.full(len(self.rows), len(counts), np.int64)
        np.minimum.at(rank, np.repeat(np.arange(len(rank)), np.diff(offsets)), rarity[numbers])
        few = np.bincount(rank, minlength=len(counts) + 1) < (4 if self.options.multi_label else 0)
        return np.where(few[rank], len(counts) - 1, rank)

    def _split(self, strata: np.ndarray, embedded: bool) -> dict[str, Rows]:
        given = self.rows.data.table.column("part").fill_null("").to_numpy().astype(str)
        keep = np.arange(len(self.rows))
        if embedded:
            keep = np.unique(audit.column(self.rows, "exact"), return_index=True)[1]
            keep.sort()
            self.notes.append(f"{len(self.rows) - len(keep)} exact duplicates are left out")
        found = splits.split(strata[keep], self.groups[keep], given[keep], self.options, self.where)
        parts = {part: keep[rows] for part, rows in found.items()}
        wanted = self.options.limit
        if wanted is None:
            wanted = FIVE_MINUTES if embedded else 0
        for part, rows in parts.items():
            whole = part == "test" and self.options.limit is None  # every recipe is judged by it
            if 0 < wanted < len(rows) and not whole:
                parts[part] = splits.limit(rows, strata, wanted, self.options.split_seed)
                said = f"{wanted:,} of {len(rows):,} texts of the {part} part are used (data.limit)"
                self.notes.append(said)
        return parts

    def _duplicates(self) -> dict[str, dict[str, int]]:
        """Found by hashes; exact ones are an error unless they are allowed."""
        found = {
            kind: splits.duplicates(self.parts, audit.column(self.rows, kind))
            for kind in ("exact", "same")
        }
        many = sum(found["exact"].values())
        if many and not self.options.allow_overlap:
            raise DataError(
                f"{many} texts are in two parts",
                where=f"{self.where}: {found['exact']}",
                allowed="a text in one part only, or the result on that part means nothing",
                mend="remove them, or --data.allow_overlap true",
            )
        if any(found["same"].values()):
            counts = ", ".join(f"{part} {n}" for part, n in found["same"].items())
            self.notes.append(
                f"texts that are in an earlier part but for case, links and handles: {counts}"
            )
        return found

    def _labels(
        self, names: list[str], numbers: np.ndarray, offsets: np.ndarray
    ) -> np.ndarray | None:
        if self.head == "regression":
            return audit.column(self.rows, "value").astype(np.float32)
        if not self.classes or self.head == "tokens":
            return None
        return labels.encode(names, numbers, offsets, self.classes, self.options.multi_label)

    def _make_encoder(self) -> Encoder:
        options = self.all_options
        config = models.load_config(options.model)
        tokenizer = models.load_tokenizer(options.model, config)
        if options.data.chat_template:
            tokenizer.chat_template = read_template(options.data.chat_template)
        if self.head == "causal" and tokenizer.eos_token is None:
            raise ConfigError("the tokenizer has no end-of-text token", where="model.name")
        limit = models.longest(config, tokenizer, self.options.max_length)
        return Encoder(tokenizer, self.head, limit, self.classes)

    def _encode(self) -> Dataset:
        """Token ids of all rows, from the cache where the same texts were read before."""
        encoder = self.encoder
        files = json.dumps(encoder.files(), sort_keys=True)
        key = [table.VERSION, self.rows._fingerprint, files, encoder.max_length, self.classes]
        name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
        folder = table.cache_folder(self.options) / "encoded"
        folder.mkdir(parents=True, exist_ok=True)
        ids = List(Value("int32"))
        columns: dict[str, Any] = {"input_ids": ids, "length": Value("int32")}
        columns |= {"labelled": Value("int32"), "cut": Value("int32"), "ended": Value("bool")}
        if self.head in ("tokens", "causal"):
            columns["labels"] = ids
        if "pair" in self.rows.column_names:
            if self.head == "embedding":
                columns["pair_ids"] = ids
            elif "token_type_ids" in encoder.tokenizer.model_input_names:
                columns["token_type_ids"] = ids
        with table.quiet():
            return self.rows.map(
                _Encode(encoder, list(columns)),
                batched=True,
                remove_columns=self.rows.column_names,
                features=Features(columns),
                new_fingerprint=name,
                cache_file_name=str(folder / f"{name}.arrow"),
                load_from_cache_file=True,
            )

    def _count(self, rows: Rows) -> dict[str, int]:
        column = "tags" if self.head == "tokens" else "label"
        chosen = self.rows.select(rows).select_columns([column])
        counts: Counter[str] = Counter()
        for batch in chosen.iter(batch_size=1000):
            counts.update(name for names in batch[column] for name in names)
        return {name: counts[name] for name in self.classes}

    def _require(self, part: str) -> None:
        if part not in self.parts or not len(self.parts[part]):
            have = [name for name, rows in self.parts.items() if len(rows)]
            raise DataError(
                f"there is no {part} part",
                where=self.where,
                allowed=", ".join(have),
                mend="--data.test_share 0.2" if part == "test" else near(part, have),
            )


class _Encode:
    """The encoder with the counts that the audit needs, for `Dataset.map`."""

    def __init__(self, encoder: Encoder, columns: list[str]) -> None:
        self.encoder, self.columns = encoder, columns

    def __call__(self, rows: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        found = self.encoder(rows)
        found["length"] = [len(ids) for ids in found["input_ids"]]
        # The first token has nothing before it from which a causal model could tell it.
        skipped = 1 if self.encoder.head == "causal" else 0
        found["labelled"] = [
            sum(label != IGNORED for label in row[skipped:]) for row in found["labels"]
        ] if "labels" in found else [1] * len(found["length"])  # fmt: skip
        return {name: found[name] for name in self.columns}
