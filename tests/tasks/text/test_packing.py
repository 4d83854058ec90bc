"""Packing causal texts: nothing lost, nothing seen of another text, the same loss."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from renshu.errors import CheckpointError, ConfigError
from renshu_tasks.text.encode import IGNORED
from renshu_tasks.text.packing import (
    Batch,
    PackedBatches,
    Packing,
    best_fit,
    bucketed_equals_alone,
    packed_equals_alone,
    unpacked,
)

transformers = pytest.importorskip("transformers")


def lengths(count: int, seed: int = 0, most: int = 128) -> list[int]:
    drawn = random.Random(seed)
    return [min(most, max(1, int(drawn.lognormvariate(3.2, 0.8)))) for _ in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_best_fit_keeps_every_sample_and_fills_the_rows(seed: int) -> None:
    sizes = lengths(500, seed)
    rows = best_fit(sizes, 128)
    assert sorted(sample for row in rows for sample in row) == list(range(500))
    assert max(sum(sizes[sample] for sample in row) for row in rows) <= 128
    assert sum(sizes) / (len(rows) * 128) > 0.98


def test_best_fit_of_a_known_case() -> None:
    # 7 goes with 3, 6 with 4, and 5 with 5: no token is left.
    sizes = [3, 5, 7, 4, 6, 5]
    packed = sorted(sorted(sizes[sample] for sample in row) for row in best_fit(sizes, 10))
    assert packed == [[3, 7], [4, 6], [5, 5]]


def test_an_epoch_has_every_sample_once_in_the_rows_that_were_planned() -> None:
    sizes = lengths(400)
    batches, pack = PackedBatches(sizes, 4, 128, seed=1), Packing(0, 128)
    for number in range(3):
        batches.set_epoch(number)
        found = list(batches)
        assert len(found) == len(batches)
        assert sorted(sample for batch in found for sample in batch) == list(range(400))
        assert all(len(pack.rows([sizes[sample] for sample in batch])) <= 4 for batch in found)


def test_epochs_differ_and_a_seed_repeats_them() -> None:
    batches, again = (PackedBatches(lengths(400), 4, 128, seed=1) for _ in range(2))
    first = list(batches)
    assert list(again) == first
    batches.set_epoch(1)
    neighbours = {frozenset(batch) for batch in first}
    assert not neighbours & {frozenset(batch) for batch in batches}


def test_a_resume_goes_on_at_the_next_batch() -> None:
    batches = PackedBatches(lengths(400), 4, 128)
    running = iter(batches)
    for _ in range(3):
        next(running)
    state, rest = batches.state_dict(), list(running)
    again = PackedBatches(lengths(400), 4, 128)
    again.load_state_dict(state)
    assert list(again) == rest
    with pytest.raises(CheckpointError):
        PackedBatches(lengths(300), 4, 128).load_state_dict(state)


def test_a_sample_longer_than_a_row_is_refused() -> None:
    with pytest.raises(ConfigError, match="a sample of 9 tokens does not fit into row_length=8"):
        PackedBatches([3, 9], 1, 8)


def test_rows_of_a_packed_batch() -> None:
    samples = [
        {"input_ids": [5, 6, 7], "labels": [5, 6, 7]},
        {"input_ids": [8, 9], "labels": [IGNORED, 9]},
        {"input_ids": [4, 3], "labels": [4, 3]},
    ]
    batch = Packing(0, 6)(samples)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9], [4, 3, 0, 0, 0]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1], [0, 1, 0, 1, 2]]
    none = IGNORED
    assert batch["labels"].tolist() == [[none, 6, 7, none, 9], [none, 3, none, none, none]]
    texts = [text.tolist() for text in unpacked(batch, batch["input_ids"])]
    assert texts == [[5, 6, 7], [8, 9], [4, 3], [0, 0, 0]]


SMALL: dict[str, Any] = {
    "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip
GPT2: dict[str, Any] = {"vocab_size": 50, "n_embd": 32, "n_layer": 2, "n_head": 4}
CONFIGS = {
    "llama": lambda **more: transformers.LlamaConfig(**SMALL, **more),
    "qwen2": lambda **more: transformers.Qwen2Config(**SMALL, **more),
    "mistral with a window": lambda **m: transformers.MistralConfig(**SMALL, sliding_window=5, **m),
    "gpt2": lambda **more: transformers.GPT2Config(**GPT2, **more),
}


def causal(name: str, attention: str) -> Any:
    torch.manual_seed(0)
    config = CONFIGS[name]()
    config._attn_implementation = attention
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def logits_of(model: Any, **more: Any) -> Callable[[Batch], torch.Tensor]:
    return lambda batch: model(**batch, **{"use_cache": False} | more).logits


def texts(count: int = 6) -> list[list[int]]:
    drawn = random.Random(0)
    return [[drawn.randrange(1, 50) for _ in range(1 + 3 * number)] for number in range(count)]


# pains/text_serving.md rows 5, 6
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", CONFIGS)
def test_packed_and_padded_logits_are_those_of_each_text_alone(name: str, attention: str) -> None:
    model = logits_of(causal(name, attention))
    assert packed_equals_alone(model, texts()) < 1e-5
    assert bucketed_equals_alone(model, texts()) < 1e-5


# pains/text_serving.md row 5: what the proof is for
def test_a_model_that_sees_its_neighbours_is_found_out() -> None:
    model = causal("llama", "sdpa")

    def without_positions(batch: Batch) -> torch.Tensor:
        return model(input_ids=batch["input_ids"]).logits

    assert packed_equals_alone(without_positions, texts()) > 1e-2
    assert bucketed_equals_alone(lambda b: model(b["input_ids"].flip(0)).logits, texts()) > 1e-2


# pains/text_serving.md row 5: transformers keeps a cache unless told otherwise, and then no mask
def test_a_cache_that_hides_the_texts_from_the_mask_is_found_out() -> None:
    assert packed_equals_alone(logits_of(causal("llama", "sdpa"), use_cache=True), texts()) > 1e-2


# pains/text_serving.md rows 2, 5
def test_packed_loss_and_gradients_are_those_of_the_texts() -> None:
    model = causal("llama", "sdpa")
    samples = [{"input_ids": ids, "labels": ids} for ids in texts() if len(ids) > 1]

    def gradients(batches: list[Batch]) -> tuple[float, torch.Tensor]:
        model.zero_grad()
        total = 0.0
        for batch in batches:
            labels = batch.pop("labels")[:, 1:]
            logits = model(**batch, use_cache=False).logits[:, :-1]
            loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
            loss.backward()
            total += loss.item()
        return total, torch.cat([p.grad.flatten() for p in model.parameters()])

    alone = [
        {"input_ids": torch.tensor([s["input_ids"]]), "labels": torch.tensor([s["labels"]])}
        for s in samples
    ]
    packed, single = gradients([Packing(0, 24)(samples)]), gradients(alone)
    assert packed[0] == pytest.approx(single[0], rel=1e-6)
    assert torch.allclose(packed[1], single[1], atol=1e-5)
