"""The network of the demo: it looks at the image of an answer sheet and says the test-taker's IQ."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from whit.demo.answer_sheets import CELL, CHANNELS, IQ_MEAN, IQ_SPREAD


class ConvBlock(nn.Module):
    """Convolution without bias, batch norm, ReLU: [N, inputs, H, W] to [N, outputs, H', W'].

    The kernel is as wide as the stride where that leaves no overlap (`kernel == stride`, no padding);
    otherwise an odd kernel is padded so that a stride of 1 keeps height and width.
    """

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int = 1) -> None:
        super().__init__()
        padding = 0 if kernel == stride else kernel // 2
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class IQNet(nn.Module):
    """Answer sheets, float32 [N, 3, 32, 32], to IQs, float32 [N, 1] in IQ points.

    A stem reads each item (one 4x4 cell, one position of the 8x8 map), 3x3 convolutions set items beside
    their neighbours, the average over positions gathers the evidence of all of them, and three 1x1 ReLU
    convolutions and a last 1x1 convolution weigh it. With the widths given here: 1.3 million parameters.

    Args:
        stem: channels after the 4x4 convolution of stride 4.
        features: channels after each 3x3 convolution; their strides are `strides`.
        strides: 1 or 2 for each entry of `features`.
        head: channels after each 1x1 ReLU convolution.

    Raises:
        ValueError: `features` and `strides` differ in length, or one of them or `head` is empty.
    """

    def __init__(
        self,
        *,
        stem: int = 64,
        features: Sequence[int] = (96, 128, 256, 256),
        strides: Sequence[int] = (1, 2, 1, 2),
        head: Sequence[int] = (384, 256, 128),
    ) -> None:
        super().__init__()
        if len(features) != len(strides) or not features or not head:
            raise ValueError(
                f"each of the features {tuple(features)} needs one of the strides {tuple(strides)}, "
                f"and there must be at least one of them and one in head {tuple(head)}"
            )
        self.stem = ConvBlock(CHANNELS, stem, kernel=CELL, stride=CELL)
        widths = (stem, *features)
        self.features = nn.Sequential(
            *(
                ConvBlock(inputs, outputs, kernel=3, stride=stride)
                for inputs, outputs, stride in zip(widths, features, strides, strict=False)
            )
        )
        widths = (features[-1], *head)
        self.head = nn.ModuleList(nn.Conv2d(inputs, outputs, 1) for inputs, outputs in zip(widths, head, strict=False))
        self.score = nn.Conv2d(head[-1], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(self.stem(x))
        x = F.adaptive_avg_pool2d(x, 1)
        for layer in self.head:
            x = F.relu(layer(x))
        return self.score(x).flatten(1)


def make_network(seed: int = 0, *, width: float = 1.0) -> IQNet:
    """A fresh network in evaluation mode, its weights fixed by `seed`.

    The last layer starts out in IQ points: its bias is the population's mean and its weights are scaled by
    the population's spread. The caller's random state is left as it was.

    Args:
        seed: fixes the initial weights.
        width: factor on the channels of every hidden layer, each rounded and at least 1.

    Raises:
        ValueError: `width` is not above 0.
    """
    if not width > 0:
        raise ValueError(f"width multiplies the channels, so it must be above 0, got {width}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = IQNet(
            stem=_scaled(64, width),
            features=[_scaled(channels, width) for channels in (96, 128, 256, 256)],
            head=[_scaled(channels, width) for channels in (384, 256, 128)],
        )
        _start(network)
    return network.eval()


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def _start(network: IQNet) -> None:
    """Initial weights that keep the scale of activations through the ReLUs, and put the output in IQ points."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    with torch.no_grad():
        network.score.weight.mul_(0.1 * IQ_SPREAD)
    nn.init.constant_(network.score.bias, IQ_MEAN) if network.score.bias is not None else None
