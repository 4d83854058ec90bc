import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from renshu import LightningDataModule, LightningModule, Trainer, seed_everything
from renshu.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from renshu.loggers import CSVLogger


class Digits(LightningDataModule):
    def setup(self, stage):
        x, y = map(torch.tensor, load_digits(return_X_y=True))
        found = TensorDataset(x.float() / 16, y)
        seed = torch.Generator().manual_seed(1)
        self.train, self.val = random_split(found, [0.8, 0.2], seed)

    def train_dataloader(self):
        return DataLoader(self.train, 32)

    def val_dataloader(self):
        return DataLoader(self.val, 256)


class Classifier(LightningModule):
    def __init__(self, width=64, lr=3e-3):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))

    def forward(self, images):
        return self.net(images)

    def training_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        scores = self(batch[0])
        self.log("val_loss", nn.functional.cross_entropy(scores, batch[1]))
        self.log("val_accuracy", (scores.argmax(1) == batch[1]).float().mean(), prog_bar=True)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.lr)
        steps = self.trainer.estimated_stepping_batches
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


seed_everything(1)
model = Classifier()
best = ModelCheckpoint(monitor="val_loss", save_last=True)
stop = EarlyStopping(monitor="val_loss", patience=3)
trainer = Trainer(
    accelerator="cpu",
    max_epochs=6,
    val_check_interval=0.5,
    log_every_n_steps=10,
    gradient_clip_val=1.0,
    callbacks=[best, stop, LearningRateMonitor()],
    logger=CSVLogger("logs"),
)
trainer.fit(model, datamodule=Digits())
accuracy = float(trainer.callback_metrics["val_accuracy"])
