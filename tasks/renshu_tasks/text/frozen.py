"""A frozen encoder's output for every text, computed once and kept on disk."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from renshu.errors import ConfigError
from renshu.messages import say
from renshu_tasks.text import table
from renshu_tasks.text.batching import LengthBatches
from renshu_tasks.text.models import last_linear
from renshu_tasks.text.samples import Encoded

if TYPE_CHECKING:
    from renshu_tasks.text.data import TextData
    from renshu_tasks.text.module import TextModel


@torch.no_grad()
def features(module: TextModel, data: TextData) -> Tensor:
    """What the last layer is given for each row of the source, float32 [N, H].

    Taken from the cache where the same weights have read the same tokens before. Rows of no part
    are 0. Raises ConfigError for a model whose head is applied to every token.
    """
    from safetensors.torch import load_file, save_file

    total = hashlib.sha256(data.encoded._fingerprint.encode())
    last = last_linear(module.model)
    for name, weight in sorted(module.model.state_dict().items()):
        if not any(weight is own for own in (last.weight, last.bias)):
            total.update(
                name.encode() + weight.cpu().contiguous().view(torch.uint8).numpy().tobytes()
            )
    rows = torch.cat([torch.from_numpy(part) for part in data.parts.values()]).sort().values
    total.update(rows.numpy().tobytes())
    file = table.cache_folder(data.options) / "features" / f"{total.hexdigest()[:32]}.safetensors"
    if file.is_file():
        return load_file(file)["features"]
    say("the frozen encoder reads every text once")
    found = _compute(module, data, rows)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({"features": found}, file.with_suffix(".new"))
    file.with_suffix(".new").replace(file)
    return found


def _compute(module: TextModel, data: TextData, rows: Tensor) -> Tensor:
    last, kept = last_linear(module.model), []
    handle = last.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    mode = module.training
    module.eval()
    found = torch.zeros(len(data.encoded), last.in_features)
    batches = LengthBatches(data.lengths[rows], 64, shuffle=False)
    samples = Encoded(data.encoded, rows.numpy(), data.labels)
    try:
        for batch in DataLoader(samples, batch_sampler=batches, collate_fn=data.collate):
            kept.clear()
            module({name: value.to(module.device) for name, value in batch.items()})
            if kept[0].ndim != 2:
                raise ConfigError(
                    "the head of this model reads every token, so there is no one vector to keep",
                    where="training.tune head",
                    allowed="all, lora",
                )
            found[batch["index"]] = kept[0].float().cpu()
    finally:
        handle.remove()
        module.train(mode)
    return found
