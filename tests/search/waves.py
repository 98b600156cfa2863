"""A tiny network and its data, in a module that the workers and commands of tests can import: which wave is it?"""

import numpy as np
import torch
from torch import nn

WAVES = np.sin(np.arange(8) * np.pi / 2 ** np.arange(4)[:, None])


class Net(nn.Module):
    """Tells which of two waves runs down an image, or of two others along it."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.second = nn.Conv2d(12, 12, 3, padding=1, stride=2)
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        x = torch.relu(self.second(torch.relu(self.norm(self.first(x)))))
        return self.head(x.mean((2, 3)))


def drawn(count, seed):
    random = np.random.default_rng(seed)
    y = random.integers(0, 4, count)
    waves = 1.2 * WAVES[y]
    down = (y % 2 == 0)[:, None, None, None]
    x = np.where(down, waves[:, None, :, None], waves[:, None, None, :]) + random.normal(size=(count, 1, 8, 8))
    return x.astype(np.float32), y


def trained(made=Net):
    torch.manual_seed(0)
    net = made().train()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    x, y = (torch.from_numpy(one) for one in drawn(1000, 0))
    for _ in range(150):
        chosen = torch.randperm(len(x))[:64]
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x[chosen]), y[chosen]).backward()
        optimizer.step()
    return net.eval()
