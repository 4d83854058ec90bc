import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from renshu import Module


class Classifier(Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def training_step(self, batch, batch_idx):
        images, labels = batch
        return nn.functional.cross_entropy(self.net(images), labels)

    def validation_step(self, batch, batch_idx):
        images, labels = batch
        return (self.net(images).argmax(1) == labels).sum()

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=3e-3)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.8)
        return [optimizer], [scheduler]


torch.manual_seed(1)
x, y = map(torch.tensor, load_digits(return_X_y=True))
train, val = random_split(TensorDataset(x.float() / 16, y), [0.8, 0.2])
train_loader, val_loader = DataLoader(train, 32), DataLoader(val, 256)

device = "cuda" if torch.cuda.is_available() else "cpu"
model = Classifier().to(device)
[optimizer], [scheduler] = model.configure_optimizers()

for epoch in range(5):
    model.train()
    for index, batch in enumerate(train_loader):
        loss = model.training_step([part.to(device) for part in batch], index)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    scheduler.step()

    model.eval()
    hits = 0
    with torch.no_grad():
        for index, batch in enumerate(val_loader):
            hits += model.validation_step([part.to(device) for part in batch], index).item()
    accuracy = hits / len(val)
    print(f"epoch {epoch}: accuracy {accuracy:.4f}")
