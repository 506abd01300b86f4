"""The small ResNets of CIFAR: teachers to distil from, and a convolutional yardstick.

Three stages of basic blocks, widths 16, 32, 64; shortcuts without parameters.
Source: He et al., "Deep residual learning for image recognition", arXiv 1512.03385, section 4.2.
"""

from __future__ import annotations

from itertools import pairwise, starmap

import torch.nn.functional as F
from torch import Tensor, nn

from vitkit.models.first_weights import make_head

__all__ = ["CifarResNet"]


class _BasicBlock(nn.Module):
    """Two convolutions and a shortcut; where the width grows, the shortcut takes every second pixel
    and pads the new channels with zeros, half before and half behind (option A of the paper).
    """

    def __init__(self, in_chans: int, dim: int) -> None:
        super().__init__()
        self.stride = 1 if dim == in_chans else 2
        self.missing = dim - in_chans
        self.conv1 = nn.Conv2d(in_chans, dim, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(dim)
        self.conv2 = nn.Conv2d(dim, dim, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.missing:
            half = self.missing // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half))
        return F.relu(x + y)


class CifarResNet(nn.Module):
    """A residual network of 6 n + 2 layers for images of about 32 px.

    Args:
        img_size: side of the pictures in pixels, or (height, width); the network takes any.
        in_chans: channels of the pictures.
        num_classes: classes of the head; 0 leaves it out.
        depth: number of convolutions and the head: 20, 32, 44, 56, 110, ...
        embed_dim: channels of the last stage; the first has a quarter of them.

    Raises:
        ValueError: a depth that is not 6 n + 2, a width that is no multiple of eight.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 32,
        in_chans: int = 3,
        num_classes: int = 10,
        depth: int = 56,
        embed_dim: int = 64,
    ) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"depth {depth}: should be 6 n + 2, such as 20, 32, 44, 56 or 110")
        if embed_dim % 8:
            raise ValueError(f"embed_dim {embed_dim}: should be a multiple of 8")
        count, width = (depth - 2) // 6, embed_dim // 4
        self.img_size = img_size
        self.num_classes, self.num_features = num_classes, embed_dim
        self.conv1 = nn.Conv2d(in_chans, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, count)
        self.layer2 = _stage(width, 2 * width, count)
        self.layer3 = _stage(2 * width, 4 * width, count)
        self.linear = make_head(embed_dim, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, channels, height, width) -> logits (B, num_classes)."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """(B, channels, height, width) -> (B, embed_dim, height / 4, width / 4)."""
        x = F.relu(self.bn1(self.conv1(images)))
        features: Tensor = self.layer3(self.layer2(self.layer1(x)))
        return features

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """The last maps -> logits (B, num_classes), or what the classifier would read."""
        x = features.mean(dim=(2, 3))
        return x if pre_logits else self.linear(x)

    def reset_classifier(self, num_classes: int) -> None:
        """A fresh head for another number of classes; 0 leaves it out."""
        self.num_classes = num_classes
        like, head = self.conv1.weight, make_head(self.num_features, num_classes)
        self.linear = head.to(like.device, like.dtype)

    def get_classifier(self) -> nn.Module:
        """The last layer, from embed_dim to num_classes."""
        return self.linear


def _stage(in_chans: int, dim: int, count: int) -> nn.Sequential:
    widths = [in_chans] + [dim] * count
    return nn.Sequential(*starmap(_BasicBlock, pairwise(widths)))
