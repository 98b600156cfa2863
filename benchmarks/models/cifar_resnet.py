"""Residual networks for CIFAR-10 (He et al. 2015, section 4.2), shortcuts without parameters (their option A)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["CifarResNet", "quarter", "resnet20", "resnet56"]


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut that halves the image and adds zero channels where the width doubles."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.missing = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        """``relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x))``."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.shortcut(x))

    def shortcut(self, x: Tensor) -> Tensor:
        """The input itself, at the size and width of the output."""
        if self.stride == 1 and self.missing == 0:
            return x
        half = self.missing // 2
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, self.missing - half))


class CifarResNet(nn.Module):
    """A residual network of ``6 * blocks + 2`` layers for images ``(batch, 3, 32, 32)``; ten logits."""

    def __init__(self, blocks: int, width: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, blocks, stride=1)
        self.layer2 = _stage(width, 2 * width, blocks, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, blocks, stride=2)
        self.linear = nn.Linear(4 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(batch, 10)``."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    first = Block(inputs, outputs, stride)
    return nn.Sequential(first, *(Block(outputs, outputs, 1) for _ in range(blocks - 1)))


def resnet20() -> CifarResNet:
    """ResNet-20: 272 thousand parameters."""
    return CifarResNet(3)


def resnet56() -> CifarResNet:
    """ResNet-56: 856 thousand parameters."""
    return CifarResNet(9)


def quarter() -> CifarResNet:
    """ResNet-20 with a quarter of the channels: 17 thousand parameters."""
    return CifarResNet(3, width=4)
