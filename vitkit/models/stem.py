"""A convolutional stem: pictures to tokens by a few small convolutions with norms and poolings.

Convolutions see edges and textures from the first step, where a patch projection must learn them:
small sets and short trainings gain most. Source of the idea: Xiao et al., "Early convolutions help
Transformers see better", arXiv 2106.14881.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitkit.models.patches import DYNAMIC_TOO, as_pair, check_size, patch_moments
from vitkit.nn import make_activation

__all__ = ["ConvStem", "StemLayer"]

Shape = tuple[int, int]


class StemLayer(nn.Module):
    """Convolution, maximum over squares, BatchNorm, activation.

    Args:
        in_chans: channels in.
        dim: channels out.
        kernel_size: side of the kernel in pixels; an even one takes a pixel off the picture.
        stride: of the convolution.
        pool: side of the squares whose maximum is kept, before norm and activation, which are
            cheaper there; 1: no pooling.
        norm: BatchNorm; without it the convolution has a bias.
        residual: add the layer's input to its output.
        act_layer: name of the activation.

    Raises:
        ValueError: a residual layer that changes the shape.
    """

    def __init__(
        self,
        in_chans: int,
        dim: int,
        kernel_size: int = 3,
        stride: int = 1,
        pool: int = 1,
        norm: bool = True,
        residual: bool = False,
        act_layer: str = "gelu",
    ) -> None:
        super().__init__()
        if residual and (dim != in_chans or stride > 1 or pool > 1 or kernel_size % 2 == 0):
            raise ValueError(
                f"a residual layer keeps its shape: given {in_chans} to {dim} channels, kernel "
                f"{kernel_size}, stride {stride}, pool {pool}"
            )
        padding = (kernel_size - 1) // 2
        self.conv = nn.Conv2d(in_chans, dim, kernel_size, stride, padding, bias=not norm)
        self.pool = nn.MaxPool2d(pool) if pool > 1 else nn.Identity()
        self.norm = nn.BatchNorm2d(dim) if norm else nn.Identity()
        self.act = make_activation(act_layer)
        self.residual = residual
        self._side = (kernel_size, stride, padding, pool)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chans, height, width) -> (B, dim, height', width')."""
        y: Tensor = self.act(self.norm(self.pool(self.conv(x))))
        return x + y if self.residual else y

    def size_after(self, height: int, width: int) -> Shape:
        """(height', width') of what :meth:`forward` makes of a picture."""
        kernel, stride, padding, pool = self._side
        after = [((n + 2 * padding - kernel) // stride + 1) // pool for n in (height, width)]
        return after[0], after[1]


class ConvStem(nn.Module):
    """Layers of small convolutions, then a projection of each place to a token.

    Args:
        img_size: (height, width) in pixels that positions are laid out for.
        layers: arguments of :class:`StemLayer`, one mapping a layer, such as
            ``{"dim": 64, "kernel_size": 3, "pool": 2}``.
        in_chans: channels of the picture.
        embed_dim: C, width of the tokens.
        act_layer: activation of every layer.
        dynamic_img_size: accept other sizes than ``img_size``.
        whiten: the first convolution is not trained; :meth:`whiten_first` sets it from pictures.

    Attributes:
        grid_size: (rows, columns) of tokens of a picture of ``img_size``.
        num_patches: their number.

    Raises:
        ValueError: no layers, or a picture too small for them.
    """

    def __init__(
        self,
        img_size: int | Shape,
        layers: Sequence[Mapping[str, int | bool]],
        *,
        in_chans: int = 3,
        embed_dim: int = 128,
        act_layer: str = "gelu",
        dynamic_img_size: bool = False,
        whiten: bool = False,
    ) -> None:
        super().__init__()
        if not layers:
            raise ValueError("a stem needs at least one layer, such as {dim: 64, pool: 2}")
        self.img_size, self.dynamic_img_size = as_pair(img_size), dynamic_img_size
        self.layers = nn.Sequential()
        width = in_chans
        for layer in layers:
            made = StemLayer(width, act_layer=act_layer, **layer)  # type: ignore[arg-type]
            self.layers.append(made)
            width = made.conv.out_channels
        self.proj = nn.Conv2d(width, embed_dim, 1)
        if whiten:  # its bias too, or the widest map of all would need a gradient
            self._first.requires_grad_(False)
        self.grid_size = self.grid_of(*self.img_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        self.to(memory_format=torch.channels_last)

    def grid_of(self, height: int, width: int) -> Shape:
        """(rows, columns) of tokens of a picture.

        Args:
            height, width: of the picture in pixels.

        Raises:
            ValueError: a picture that is too small: no token is left of it.
        """
        size = (height, width)
        for layer in self.layers:
            assert isinstance(layer, StemLayer)
            size = layer.size_after(*size)
        if min(size) < 1:
            raise ValueError(
                f"image size {height} x {width} is too small for this stem: nothing is left after "
                f"its {len(self.layers)} layers; use larger images or fewer poolings"
            )
        return size

    @torch.no_grad()
    def whiten_first(self, images: Tensor, eps: float = 5e-4) -> None:
        """Set the first convolution so that its outputs are uncorrelated and of equal variance.

        The kernels become the eigenvectors of the covariance of patches, over the square roots of
        their eigenvalues, each with both signs, for what follows bends at zero. Channels beyond
        these, which small patches of grey pictures leave, become random mixtures of them, of the
        same variance. Neighbouring pixels are nearly alike, so without whitening the steepest
        directions of the loss are brightness alone.
        Source: Page, "How to train your ResNet" (2019), part 8; Jordan, airbench, arXiv 2404.00498.

        Args:
            images: float (N, channels, height, width), as the model sees them; a few thousand.
            eps: added to the eigenvalues.
        """
        weight, bias = self._first.weight, self._first.bias
        if bias is not None:
            bias.zero_()
        out_chans, in_chans, height, width = weight.shape
        _, squares = patch_moments(images, (height, width), stride=(1, 1))
        values, vectors = torch.linalg.eigh(squares)
        kernels = (vectors / (values + eps).sqrt()).T.flip(0)[: out_chans // 2]
        others = torch.randn(
            max(0, out_chans - 2 * len(kernels)), len(kernels), dtype=kernels.dtype
        )
        mixed = F.normalize(others, dim=1).to(kernels.device) @ kernels
        whole = torch.cat([kernels, -kernels, mixed])
        weight.copy_(whole.view(-1, in_chans, height, width)[:out_chans])

    @property
    def _first(self) -> nn.Conv2d:
        layer = self.layers[0]
        assert isinstance(layer, StemLayer)
        return layer.conv

    def forward(self, images: Tensor) -> tuple[Tensor, Shape]:
        """(B, channels, height, width) -> tokens (B, N, C), row by row, and their grid."""
        if not self.dynamic_img_size:
            check_size(images, self.img_size, DYNAMIC_TOO)
        # Channels last: three times as fast on a CPU, and tokens come out of it without a copy.
        x = self.layers(images.contiguous(memory_format=torch.channels_last))
        x = self.proj(x)
        return x.flatten(2).transpose(1, 2), (x.shape[2], x.shape[3])
