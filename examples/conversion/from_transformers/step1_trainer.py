import torch
from sklearn.datasets import load_digits
from torch.utils.data import random_split
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

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


def accuracy_of(prediction):
    return {"accuracy": float((prediction.predictions.argmax(1) == prediction.label_ids).mean())}


arguments = TrainingArguments(
    output_dir="out",
    num_train_epochs=3,
    per_device_train_batch_size=32,
    gradient_accumulation_steps=2,
    learning_rate=3e-3,
    weight_decay=0.01,
    warmup_steps=10,
    lr_scheduler_type="linear",
    optim="adamw_torch",
    max_grad_norm=1.0,
    train_sampling_strategy="sequential",
    eval_strategy="epoch",
    save_strategy="epoch",
    use_cpu=True,
    report_to="none",
)
trainer = Trainer(model, arguments, None, train, val, compute_metrics=accuracy_of)
trainer.train()
accuracy = trainer.evaluate()["eval_accuracy"]
