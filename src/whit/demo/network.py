"""The network of the demo: it looks at an answer sheet and tells the IQ."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from whit.demo.answer_sheets import CELL, CHANNELS, IQ_MEAN, IQ_SPREAD
from whit.errors import ModelError

__all__ = ["ConvBlock", "IQNet", "make_network"]

STEM = 64
FEATURES = (96, 128, 256, 256)
STRIDES = (1, 2, 1, 2)
HEAD = (384, 256, 128)


class ConvBlock(nn.Module):
    """Convolution without bias, batch norm, ReLU: float32 [N, inputs, H, W] to [N, outputs, H', W']."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int, padding: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output; ``H' = H`` for 3x3 kernels with stride 1 and padding 1."""
        return F.relu(self.norm(self.conv(x)))


class IQNet(nn.Module):
    """Answer sheets, float32 [N, 3, 32, 32], to IQs, float32 [N, 1] in IQ points.

    The stem reads every item by itself (a 4x4 kernel on each 4x4 cell), 3x3 convolutions see items among
    their neighbours, the average over all positions gathers the evidence, and three 1x1 ReLU convolutions
    and a last one weigh it. With the default widths: 1.29 million parameters, 12.8 million MACs a sheet.

    Args:
        stem: Channels after the 4x4 convolution.
        features: Channels after each 3x3 convolution.
        strides: The stride of each of them.
        head: Channels after each 1x1 ReLU convolution.

    Raises:
        ModelError: ``features`` or ``head`` is empty, or ``strides`` has another length than ``features``.
    """

    def __init__(
        self,
        *,
        stem: int = STEM,
        features: Sequence[int] = FEATURES,
        strides: Sequence[int] = STRIDES,
        head: Sequence[int] = HEAD,
    ) -> None:
        super().__init__()
        if not features or not head or len(features) != len(strides):
            raise ModelError(
                f"IQNet(features={tuple(features)}, strides={tuple(strides)}, head={tuple(head)}): give at least "
                "one width for features and head, and one stride for each feature width"
            )
        self.stem = ConvBlock(CHANNELS, stem, kernel=CELL, stride=CELL, padding=0)
        self.features = nn.Sequential(
            *(
                ConvBlock(inputs, outputs, kernel=3, stride=stride, padding=1)
                for (inputs, outputs), stride in zip(pairwise((stem, *features)), strides, strict=True)
            )
        )
        self.head = nn.ModuleList(nn.Conv2d(inputs, outputs, 1) for inputs, outputs in pairwise((features[-1], *head)))
        self.score = nn.Conv2d(head[-1], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The IQ, float32 [N, 1], of each sheet, float32 [N, 3, 32, 32]."""
        x = self.features(self.stem(x))
        x = F.adaptive_avg_pool2d(x, 1)
        for layer in self.head:
            x = F.relu(layer(x))
        return self.score(x).flatten(1)


def make_network(seed: int = 0, *, width: float = 1.0) -> IQNet:
    """An untrained network in evaluation mode, its weights fixed by ``seed``.

    It starts out in IQ points: the last bias is the population's mean, so that no rescaling has to follow
    the last layer. torch's own random state is left as it was.

    Args:
        seed: Fixes the weights.
        width: Multiplies the channels of every hidden layer; each is rounded and at least 1.

    Raises:
        ModelError: ``width`` is not more than 0.
    """
    if not width > 0:
        raise ModelError(f"make_network(width={width}): channels are multiplied by it, so it is more than 0")

    def scaled(*channels: int) -> list[int]:
        return [max(1, round(width * one)) for one in channels]

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = IQNet(stem=scaled(STEM)[0], features=scaled(*FEATURES), head=scaled(*HEAD))
        _initialise_(network)
    return network.eval()


@torch.no_grad()
def _initialise_(network: IQNet) -> None:
    """He's weights (2015), which keep the scale through ReLUs; a last layer that says about the mean IQ."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                module.bias.zero_()
    network.score.weight.mul_(0.1 * IQ_SPREAD)
    if network.score.bias is not None:
        network.score.bias.fill_(IQ_MEAN)
