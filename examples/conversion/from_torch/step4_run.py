import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from renshu import Module, Trainer
from renshu.callbacks import ModelCheckpoint


class Classifier(Module):
    def __init__(self, width=64, lr=3e-3):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))

    def forward(self, images):
        return self.net(images)

    def training_step(self, batch, batch_idx):
        images, labels = batch
        loss = nn.functional.cross_entropy(self(images), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        images, labels = batch
        self.log("val_accuracy", (self(images).argmax(1) == labels).float().mean(), prog_bar=True)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.lr)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.8)
        return [optimizer], [scheduler]


torch.manual_seed(1)
x, y = map(torch.tensor, load_digits(return_X_y=True))
train, val = random_split(TensorDataset(x.float() / 16, y), [0.8, 0.2])
train_loader, val_loader = DataLoader(train, 32), DataLoader(val, 256)

model = Classifier()
best = ModelCheckpoint(monitor="val_accuracy", mode="max")
trainer = Trainer(max_epochs=5, gradient_clip_val=1.0, run="digits", callbacks=best)
trainer.fit(model, train_loader, val_loader, ckpt_path="last")  # again: goes on, or is done
accuracy = float(trainer.callback_metrics["val_accuracy"])
restored = Classifier.load_from_checkpoint(best.best_model_path)
