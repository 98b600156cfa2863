"""A small MobileNetV2 (Sandler et al. 2018) for images of 32 by 32: inverted residuals with depthwise convolutions."""

from torch import Tensor, nn

__all__ = ["MobileNet"]

STEM, LAST = 32, 256
STAGES = ((24, 1, 2, 2), (40, 2, 3, 3), (80, 2, 3, 3))
"""Channels, stride of the first block, expansion, blocks."""


class MobileNet(nn.Module):
    """160 thousand parameters and 6.1 million multiply-accumulates for images ``(batch, 3, 32, 32)``; ten logits."""

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        channels = STEM
        for width, stride, expansion, count in STAGES:
            for place in range(count):
                blocks.append(InvertedResidual(channels, width, expansion, stride if place == 0 else 1))
                channels = width
        self.stem = unit(3, STEM, 3, stride=2)
        self.blocks = nn.Sequential(*blocks)
        self.last = unit(channels, LAST, 1)
        self.linear = nn.Linear(LAST, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(batch, 10)``."""
        return self.linear(self.last(self.blocks(self.stem(x))).mean((2, 3)))


class InvertedResidual(nn.Module):
    """Expand, convolve every channel by itself, project; and a shortcut where the shapes allow one."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand = unit(inputs, wide, 1)
        self.depthwise = unit(wide, wide, 3, stride=stride, groups=wide)
        self.project = unit(wide, outputs, 1, activation=False)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """``project(depthwise(expand(x)))``, and ``x``."""
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.shortcut else y


def unit(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, *, activation: bool = True
) -> nn.Sequential:
    """A convolution, its batch normalisation, and ReLU6 if asked."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), *([nn.ReLU6()] if activation else []))
