import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, random_split
from transformers import ViTConfig, ViTForImageClassification, default_data_collator
from transformers import get_linear_schedule_with_warmup as linear

from renshu import Module, Trainer


class Digits(Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def training_step(self, batch, batch_idx):
        return self.model(**batch).loss

    def validation_step(self, batch, batch_idx):
        output = self.model(**batch)
        self.log("loss", output.loss)
        self.log("accuracy", (output.logits.argmax(1) == batch["labels"]).float().mean())

    def configure_optimizers(self):
        kept = [p for n, p in self.named_parameters() if n.endswith("bias") or "norm" in n]
        others = [p for p in self.parameters() if id(p) not in set(map(id, kept))]
        groups = [{"params": others, "weight_decay": 0.01}, {"params": kept, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=3e-3)
        scheduler = linear(optimizer, 10, self.trainer.estimated_stepping_batches)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


torch.manual_seed(1)
x, y = load_digits(return_X_y=True)
pictures = torch.Tensor(x / 16).view(-1, 1, 8, 8)
rows = [{"pixel_values": p, "labels": int(n)} for p, n in zip(pictures, y, strict=True)]
train, val = random_split(rows, [0.8, 0.2])

config = ViTConfig(
    image_size=8,
    patch_size=2,
    num_channels=1,
    num_labels=10,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
)
model = ViTForImageClassification(config)

train_loader = DataLoader(train, 32, collate_fn=default_data_collator)
val_loader = DataLoader(val, 8, collate_fn=default_data_collator)
trainer = Trainer(
    accelerator="cpu",
    max_epochs=3,
    accumulate_grad_batches=2,
    gradient_clip_val=1.0,
)
trainer.fit(Digits(model), train_loader, val_loader)
accuracy = float(trainer.callback_metrics["accuracy"])
