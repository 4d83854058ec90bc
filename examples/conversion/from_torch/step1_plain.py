import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

torch.manual_seed(1)
x, y = map(torch.tensor, load_digits(return_X_y=True))
train, val = random_split(TensorDataset(x.float() / 16, y), [0.8, 0.2])
train_loader, val_loader = DataLoader(train, 32), DataLoader(val, 256)

device = "cuda" if torch.cuda.is_available() else "cpu"
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.8)

for epoch in range(5):
    model.train()
    for images, labels in train_loader:
        loss = nn.functional.cross_entropy(model(images.to(device)), labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    scheduler.step()

    model.eval()
    hits = 0
    with torch.no_grad():
        for images, labels in val_loader:
            hits += (model(images.to(device)).argmax(1) == labels.to(device)).sum().item()
    accuracy = hits / len(val)
    print(f"epoch {epoch}: accuracy {accuracy:.4f}")
