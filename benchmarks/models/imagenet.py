"""Networks in the shape of ResNet-50 (He et al. 2015) and MobileNetV2 (Sandler et al. 2018), for 224x224 images."""

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["MobileNetV2", "ResNet50"]


def convolution(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution that keeps the image's size but for its stride, and a batch normalisation."""
    conv = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, and a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *convolution(inputs, width, 1),
            nn.ReLU(),
            *convolution(width, width, 3, stride),
            nn.ReLU(),
            *convolution(width, 4 * width, 1),
        )
        same = stride == 1 and inputs == 4 * width
        self.shortcut = nn.Sequential(*([] if same else convolution(inputs, 4 * width, 1, stride)))

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, 4 * width, ...)``."""
        return F.relu(self.layers(x) + self.shortcut(x))


class ResNet50(nn.Module):
    """Images ``(batch, 3, 224, 224)`` to 1000 logits; 25.6 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1))
        blocks: list[nn.Module] = []
        inputs = 64
        for width, count, first in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
            for place in range(count):
                blocks.append(Bottleneck(inputs, width, first if place == 0 else 1))
                inputs = 4 * width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class InvertedResidual(nn.Module):
    """A 1x1 convolution to more channels, a depthwise 3x3 one, a 1x1 one to fewer, and a shortcut where sizes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int, growth: int) -> None:
        super().__init__()
        width = inputs * growth
        grow = [] if growth == 1 else [*convolution(inputs, width, 1), nn.ReLU6()]
        self.layers = nn.Sequential(
            *grow,
            *convolution(width, width, 3, stride, groups=width),
            nn.ReLU6(),
            *convolution(width, outputs, 1),
        )
        self.same = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, outputs, ...)``."""
        return x + self.layers(x) if self.same else self.layers(x)


class MobileNetV2(nn.Module):
    """Images ``(batch, 3, 224, 224)`` to 1000 logits; 3.5 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*convolution(3, 32, 3, 2), nn.ReLU6())
        blocks: list[nn.Module] = []
        inputs = 32
        table = (
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        )
        for growth, outputs, count, first in table:
            for place in range(count):
                blocks.append(InvertedResidual(inputs, outputs, first if place == 0 else 1, growth))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Sequential(*convolution(inputs, 1280, 1), nn.ReLU6())
        self.head = nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.last(self.blocks(self.stem(x))).mean((2, 3)))
