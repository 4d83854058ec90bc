"""What the text benchmarks compare with: the Hugging Face Trainer and pipeline, scikit-learn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Ids = list[list[int]]
RATE, DECAY, WARMUP, CLIP, BATCH = 1e-4, 0.01, 0.06, 1.0, 32
"""One recipe for all: AdamW, linear schedule, one epoch, gradients clipped, 32 texts a batch."""


def cpu_seconds(work: Callable[[], Any]) -> float:
    """Processor seconds of this process, all threads: what other programs do does not count."""
    start = time.process_time()
    work()
    return time.process_time() - start


class TrainerRows(torch.utils.data.Dataset[dict[str, Any]]):
    """Token ids with labels, as the Trainer wants them."""

    def __init__(self, ids: Ids, labels: Sequence[Any]) -> None:
        self.ids, self.labels = ids, labels

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"input_ids": self.ids[row], "labels": self.labels[row]}


def hugging_face_trainer(
    model: nn.Module,
    rows: TrainerRows,
    collate: Any,
    folder: Path,
    *,
    sampling: str = "random",
    seed: int = 0,
    epochs: float = 1.0,
) -> float:
    """Train in place; CPU seconds of `train()` alone."""
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=BATCH,
        num_train_epochs=epochs,
        learning_rate=RATE,
        weight_decay=DECAY,
        warmup_steps=WARMUP,
        max_grad_norm=CLIP,
        optim="adamw_torch_fused",
        lr_scheduler_type="linear",
        train_sampling_strategy=sampling,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
        seed=seed,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collate)
    return cpu_seconds(trainer.train)


def without_padding(model: nn.Module, ids: Ids, sizes: Iterable[tuple[int, int]]) -> float:
    """A plain loop over the same real tokens with no padding at all; CPU seconds.

    The texts are one stream, cut into rows of equal length: of each batch of (texts, real tokens)
    as many rows, as long as the mean of its texts.
    """
    model.train()  # with dropout, as the others; a loaded model is in evaluation mode
    stream = torch.tensor([token for text in ids for token in text])
    batches = [(texts, max(1, round(tokens / texts))) for texts, tokens in sizes]
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=DECAY, fused=True)
    rise = max(1, round(WARMUP * len(batches)))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / rise, (len(batches) - step) / len(batches)),
    )

    def loop() -> None:
        start = 0
        for texts, tokens in batches:
            start = start if start + texts * tokens <= len(stream) else 0
            rows = stream[start : start + texts * tokens].view(texts, tokens)
            start += texts * tokens
            loss = model(input_ids=rows, labels=torch.zeros(texts, dtype=torch.int64)).loss
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()

    return cpu_seconds(loop)


def pipeline_seconds(folder: Path, texts: Sequence[str]) -> float:
    """CPU seconds of `transformers.pipeline(batch_size=32)` over the texts."""
    from transformers import pipeline

    classify = pipeline("text-classification", model=str(folder), device="cpu")
    return cpu_seconds(lambda: list(classify(list(texts), batch_size=BATCH, truncation=True)))


def tfidf(train: Sequence[str], labels: Sequence[Any], test: Sequence[str], kind: str) -> Any:
    """Predicted labels of TF-IDF over words and pairs of words with a linear model."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    model = LinearSVC() if kind == "svm" else LogisticRegression(max_iter=1000)
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=1)
    return make_pipeline(words, model).fit(train, labels).predict(test)


def frozen_vectors(model: nn.Module, ids: Ids) -> np.ndarray:
    """Mean-pooled vectors of length 1 of a frozen encoder, float32 [N, H]."""
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    vectors = np.zeros((len(ids), model.config.hidden_size), np.float32)
    model.eval()
    for start in range(0, len(order), 64):
        rows = order[start : start + 64]
        width = max(len(ids[row]) for row in rows)
        tokens = torch.zeros(len(rows), width, dtype=torch.int64)
        mask = torch.zeros_like(tokens)
        for number, row in enumerate(rows):
            tokens[number, : len(ids[row])] = torch.tensor(ids[row])
            mask[number, : len(ids[row])] = 1
        with torch.no_grad():
            hidden: Tensor = model(input_ids=tokens, attention_mask=mask).last_hidden_state
        mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        vectors[rows] = nn.functional.normalize(mean, dim=-1).numpy()
    return vectors


def logistic(train: np.ndarray, labels: Sequence[Any], test: np.ndarray) -> Any:
    """Predicted labels of a logistic regression on vectors."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=10, max_iter=2000).fit(train, labels).predict(test)
