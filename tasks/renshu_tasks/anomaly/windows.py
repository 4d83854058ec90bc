"""Windows of a series for a network: views of one tensor, gathered batch by batch."""

from __future__ import annotations

from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset


def windows_of(values: Tensor, length: int) -> Tensor:
    """float32 [T, C] → [T - length + 1, C, length], a view: the series is not copied."""
    return values.unfold(0, length, 1)


def loader(values: Tensor, length: int, batch_size: int, shuffle: bool) -> DataLoader:
    """Batches [window], float32 [B, C, length], of a scaled series [T, C]."""
    return DataLoader(TensorDataset(windows_of(values, length)), batch_size, shuffle=shuffle)
