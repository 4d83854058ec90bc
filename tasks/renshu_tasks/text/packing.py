"""Several texts in a row of a causal model, none of which sees another.

A packed batch has no attention mask: position ids that start again at 0 with every text say where
the texts are, and transformers builds the mask for whichever attention is used (eager, SDPA, flash,
flex), sliding windows included. It does so only where no cache is kept, so call the model with
`use_cache=False`. Whether a given model follows is not taken on trust: `packed_equals_alone`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from renshu_tasks.text.batching import Batches, EpochBatches, refuse_longer
from renshu_tasks.text.encode import IGNORED

Batch = dict[str, Tensor]


class PackedBatches(EpochBatches):
    """Batches of `rows` packed rows each; a batch is the list of its samples, row after row.

    The samples are packed once by best fit, longest first (Johnson 1973: at most 11/9 of the fewest
    rows). In every epoch samples of equal length change places and the rows are shuffled, so the
    number of batches is always the same.

    Args:
        lengths: tokens of each sample. [N]
        rows: rows a batch.
        row_length: most tokens a row.
        seed: see `EpochBatches`.

    Raises:
        ConfigError: a sample is longer than a row.
    """

    def __init__(
        self,
        lengths: Sequence[int] | Tensor,
        rows: int,
        row_length: int,
        *,
        seed: int | None = None,
    ) -> None:
        self.lengths, self.rows = torch.as_tensor(lengths, dtype=torch.int64), rows
        refuse_longer(self.lengths, row_length, "row_length")
        self.plan = best_fit(self.lengths.tolist(), row_length)
        super().__init__(-(-len(self.plan) // rows), seed)

    def _arrange(self, generator: torch.Generator) -> Batches:
        mixed = torch.randperm(len(self.lengths), generator=generator)
        instead = torch.empty_like(mixed)
        by_length = self.lengths.argsort(stable=True)
        instead[by_length] = mixed[self.lengths[mixed].argsort(stable=True)]
        sample = instead.tolist()
        shuffled = torch.randperm(len(self.plan), generator=generator).tolist()
        packed = [[sample[place] for place in self.plan[row]] for row in shuffled]
        starts = range(0, len(packed), self.rows)
        groups = [packed[start : start + self.rows] for start in starts]
        return [list(chain.from_iterable(group)) for group in groups]


def best_fit(lengths: Sequence[int], row_length: int) -> Batches:
    """Rows of samples, each of at most `row_length` tokens: longest first, where least is left."""
    rows: Batches = []
    open_rows: dict[int, list[int]] = {}  # tokens left → rows
    # Bit n is set where a row with n tokens left exists: the least that suffices is found at once.
    spaces = 0
    for sample in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        fitting = spaces >> lengths[sample]
        if fitting:
            space = lengths[sample] + (fitting & -fitting).bit_length() - 1
            row = open_rows[space].pop()
            spaces ^= (not open_rows[space]) << space
        else:
            space, row = row_length, len(rows)
            rows.append([])
        rows[row].append(sample)
        left = space - lengths[sample]
        open_rows.setdefault(left, []).append(row)
        spaces |= 1 << left
    return rows


class Packing:
    """Samples → packed rows: input_ids, position_ids and labels, int64 [R, L] each.

    A row takes the next sample as long as there is room, which needs no more rows than any division
    of the samples in their order. The first token of each text carries no label: what comes before
    it belongs to another. What is left of a row is filled with a text of padding.

    Args:
        pad: number of the padding token.
        row_length: most tokens a row.
    """

    def __init__(self, pad: int, row_length: int) -> None:
        self.pad, self.row_length = pad, row_length

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> Batch:
        rows = self.rows([len(sample["input_ids"]) for sample in samples])
        width = max(sum(len(samples[number]["input_ids"]) for number in row) for row in rows)
        batch = {
            "input_ids": torch.full((len(rows), width), self.pad),
            "position_ids": torch.zeros(len(rows), width, dtype=torch.int64),
            "labels": torch.full((len(rows), width), IGNORED),
        }
        for number, row in enumerate(rows):
            start = 0
            for sample in row:
                ids = torch.as_tensor(samples[sample]["input_ids"])
                place = (number, slice(start, start + len(ids)))
                batch["input_ids"][place] = ids
                batch["position_ids"][place] = torch.arange(len(ids))
                if "labels" in samples[sample]:
                    batch["labels"][place] = torch.as_tensor(samples[sample]["labels"])
                    batch["labels"][number, start] = IGNORED
                start += len(ids)
            batch["position_ids"][number, start:] = torch.arange(width - start)
        return batch

    def rows(self, lengths: Sequence[int]) -> Batches:
        """Places of the samples, row by row."""
        rows: Batches = []
        left = -1
        for number, length in enumerate(lengths):
            if length > left:
                rows.append([])
                left = self.row_length
            rows[-1].append(number)
            left -= length
        return rows


def unpacked(batch: Batch, values: Tensor) -> list[Tensor]:
    """Values [R, L, ...] of a packed batch, text by text: [tokens, ...]; padding as the last."""
    found = []
    for positions, row in zip(batch["position_ids"], values, strict=True):
        starts = (positions == 0).nonzero()[:, 0].tolist()
        found += [row[a:b] for a, b in zip(starts, [*starts[1:], len(row)], strict=True)]
    return found


Logits = Callable[[Batch], Tensor]
"""A causal model in evaluation mode: a batch → logits [B, L, V]."""


def packed_equals_alone(model: Logits, samples: Sequence[Sequence[int]]) -> float:
    """The largest difference of a logit between texts packed into one row and each text alone.

    Args:
        model: see `Logits`; gets input_ids and position_ids.
        samples: token ids of some texts, each [tokens].
    """
    batch = Packing(0, sum(map(len, samples)))([{"input_ids": ids} for ids in samples])
    with torch.no_grad():
        return _largest(unpacked(batch, model(_inputs(batch))), _alone(model, samples))


def bucketed_equals_alone(model: Logits, samples: Sequence[Sequence[int]], pad: int = 0) -> float:
    """The same for texts that are padded on the right to the longest, with an attention mask."""
    width = max(map(len, samples))
    ids = torch.tensor([[*ids, *[pad] * (width - len(ids))] for ids in samples])
    lengths = torch.tensor([len(ids) for ids in samples])
    mask = (torch.arange(width) < lengths[:, None]).long()
    with torch.no_grad():
        together = model({"input_ids": ids, "attention_mask": mask})
        parts = [row[: len(ids)] for row, ids in zip(together, samples, strict=True)]
        return _largest(parts, _alone(model, samples))


def _inputs(batch: Batch) -> Batch:
    return {name: batch[name] for name in ("input_ids", "position_ids")}


def _alone(model: Logits, samples: Sequence[Sequence[int]]) -> list[Tensor]:
    ones = [torch.tensor([list(ids)]) for ids in samples]
    return [model({"input_ids": ids, "attention_mask": torch.ones_like(ids)})[0] for ids in ones]


def _largest(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    pairs = zip(first, second, strict=True)
    return max(float((one - other).abs().max()) for one, other in pairs)
