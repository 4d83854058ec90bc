import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from renshu import Module, Trainer


class Classifier(Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def training_step(self, batch, batch_idx):
        images, labels = batch
        return nn.functional.cross_entropy(self.net(images), labels)

    def validation_step(self, batch, batch_idx):
        images, labels = batch
        self.log("val_accuracy", (self.net(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=3e-3)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.8)
        return [optimizer], [scheduler]


torch.manual_seed(1)
x, y = map(torch.tensor, load_digits(return_X_y=True))
train, val = random_split(TensorDataset(x.float() / 16, y), [0.8, 0.2])
train_loader, val_loader = DataLoader(train, 32), DataLoader(val, 256)

model = Classifier()
trainer = Trainer(max_epochs=5, gradient_clip_val=1.0)
trainer.fit(model, train_loader, val_loader)
accuracy = float(trainer.callback_metrics["val_accuracy"])
