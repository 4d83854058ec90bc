import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from renshu import Module, Trainer, seed_everything


class Classifier(Module):
    def __init__(self, lr=3e-3):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))

    def training_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        hits = self.net(batch[0]).argmax(1) == batch[1]
        self.log("val_accuracy", hits.float().mean(), prog_bar=True)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.hparams.lr)


seed_everything(1)
x, y = map(torch.tensor, load_digits(return_X_y=True))
train, val = random_split(TensorDataset(x.float() / 16, y), [0.8, 0.2])
trainer = Trainer(accelerator="auto", max_epochs=10)
trainer.fit(Classifier(), DataLoader(train, 32, shuffle=True), DataLoader(val, 256))
