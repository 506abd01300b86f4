"""Pictures to tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["DYNAMIC_TOO", "PatchEmbed", "as_pair", "check_size", "kept_patches", "patch_moments"]

DYNAMIC_TOO = "resize the images or build it with dynamic_img_size=True"
"""What to do about another image size where the model may be built for any."""


def as_pair(size: int | Sequence[int]) -> tuple[int, int]:
    """(height, width) from one number or a pair."""
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def check_size(
    images: Tensor, built_for: tuple[int, int], remedy: str = "resize the images"
) -> None:
    """Refuse pictures of another size than a model was built for.

    Args:
        images: (B, channels, height, width).
        built_for: (height, width).
        remedy: what to do.

    Raises:
        ValueError: another size.
    """
    height, width = images.shape[-2:]
    if (height, width) != built_for:
        raise ValueError(
            f"image size {height} x {width} given to a model built for {built_for[0]} x "
            f"{built_for[1]}; {remedy}"
        )


class PatchEmbed(nn.Module):
    """Cut a picture into patches and project each to a token: one strided convolution.

    Args:
        img_size: (height, width) in pixels that positions are laid out for; multiples of the patch.
        patch_size: (height, width) of a patch in pixels.
        in_chans: channels of the picture.
        embed_dim: C, width of the tokens.
        bias: bias of the projection.
        dynamic_img_size: accept any multiple of the patch instead of ``img_size`` alone.

    Raises:
        ValueError: a size that is not a multiple of the patch.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int],
        patch_size: int | tuple[int, int],
        *,
        in_chans: int = 3,
        embed_dim: int = 768,
        bias: bool = True,
        dynamic_img_size: bool = False,
    ) -> None:
        super().__init__()
        self.img_size, self.patch_size = as_pair(img_size), as_pair(patch_size)
        self.dynamic_img_size = dynamic_img_size
        self.grid_size = self.grid_of(*self.img_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        self.proj = nn.Conv2d(in_chans, embed_dim, self.patch_size, self.patch_size, bias=bias)

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of patches of a picture.

        Args:
            height, width: of the picture in pixels.

        Raises:
            ValueError: a size that is not a multiple of the patch.
        """
        rows, columns = self.patch_size
        if height % rows or width % columns or not height or not width:
            nearest = (
                max(1, round(height / rows)) * rows,
                max(1, round(width / columns)) * columns,
            )
            raise ValueError(
                f"image size {height} x {width} is not a multiple of the patch size "
                f"{rows} x {columns}; the nearest that is: {nearest[0]} x {nearest[1]}"
            )
        return height // rows, width // columns

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """(B, channels, height, width) -> tokens (B, N, C), row by row, and their grid."""
        if not self.dynamic_img_size:
            check_size(images, self.img_size, DYNAMIC_TOO)
        grid = self.grid_of(*images.shape[-2:])
        return self.proj(images).flatten(2).transpose(1, 2), grid

    @torch.no_grad()
    def whiten(self, images: Tensor, eps: float = 1e-2, std: float = 0.5) -> None:
        """Begin with random mixtures of the patches' principal components, each of variance one.

        Neighbouring pixels are nearly alike, so without it the steepest directions of the loss are
        brightness alone. Of more components than channels the largest are taken, and the channels
        are then uncorrelated.
        Source: of whitening a first layer, see :meth:`vitkit.models.stem.ConvStem.whiten_first`.

        Args:
            images: float (N, channels, height, width), as the model sees them; a few thousand.
            eps: added to the components' variances.
            std: of the channels, over patches and channels.
        """
        weight = self.proj.weight
        height, width = self.patch_size
        mean, squares = patch_moments(images, (height, width), stride=(height, width))
        values, vectors = torch.linalg.eigh(squares - mean[:, None] * mean)
        count = min(len(weight), len(values))
        whitened = (vectors / (values + eps).sqrt()).T[-count:]
        mixing = torch.randn(len(weight), count, dtype=mean.dtype).to(mean.device)
        mixing = torch.linalg.qr(mixing).Q * (std * (len(weight) / count) ** 0.5)
        kernels = mixing @ whitened
        weight.copy_(kernels.view_as(weight))
        if self.proj.bias is not None:
            self.proj.bias.copy_(-kernels @ mean)


def kept_patches(count: int, dropped: float) -> int:
    """How many of ``count`` patches are left when a share is dropped: at least one."""
    return max(1, int(count * (1.0 - dropped) + 1e-6))  # 20 x (1 - 0.9) is a hair below 2


def patch_moments(
    images: Tensor, size: tuple[int, int], stride: tuple[int, int], at_a_time: int = 64
) -> tuple[Tensor, Tensor]:
    """Mean of all patches, and the mean of their outer products: float64 (P,) and (P, P).

    Args:
        images: float (N, channels, height, width).
        size: (height, width) of a patch; P is channels x height x width.
        stride: from patch to patch.
        at_a_time: images whose patches are in memory together.
    """
    total, squares, count = torch.zeros(()), torch.zeros(()), 0
    for some in images.split(at_a_time):
        patches = some.unfold(2, size[0], stride[0]).unfold(3, size[1], stride[1])
        rows = patches.permute(0, 2, 3, 1, 4, 5).flatten(0, 2).flatten(1).double()
        total, squares = total + rows.sum(0), squares + rows.T @ rows
        count += len(rows)
    return total / count, squares / count
