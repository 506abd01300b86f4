"""The same ViT from five libraries, with random weights and equal parameter counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor, nn

import vitkit
from vitkit.evaluation.cost import count_parameters

__all__ = ["COLUMNS", "OURS", "SIZES", "Vit", "build_all", "libraries"]

OURS = "vitkit"


@dataclass(frozen=True)
class Vit:
    """A plain ViT: class token, learned positions, pre-norm, MLP of four times the width.

    Attributes:
        img_size, patch_size: sides in pixels.
        embed_dim, depth, num_heads, num_classes: as everywhere.
        batch: images of a training step, on a CPU and on a GPU.
    """

    img_size: int
    patch_size: int
    embed_dim: int
    depth: int
    num_heads: int
    num_classes: int
    batch: tuple[int, int]

    @property
    def tokens(self) -> int:
        """Patches and the class token."""
        return (self.img_size // self.patch_size) ** 2 + 1

    def images(self, batch: int, device: str) -> Tensor:
        """Random pictures."""
        return torch.randn(batch, 3, self.img_size, self.img_size, device=device)


SIZES = {
    "tiny/4": Vit(32, 4, 192, 12, 3, 10, (64, 1024)),
    "small/4": Vit(32, 4, 384, 12, 6, 10, (64, 1024)),
    "tiny/16": Vit(224, 16, 192, 12, 3, 1000, (16, 512)),
    "small/16": Vit(224, 16, 384, 12, 6, 1000, (8, 256)),
    "base/16": Vit(224, 16, 768, 12, 12, 1000, (4, 128)),
    "micro/8": Vit(16, 8, 32, 2, 2, 10, (2, 2)),
}
"""Width/patch -> the model: 32 px with patch 4, 224 px with patch 16; ``micro/8`` is for tests."""

COLUMNS = {
    OURS: OURS,
    "timm": "timm",
    "vit-pytorch": "v-p",
    "torchvision": "tv",
    "transformers": "hf",
}
"""Library -> heading of its column."""

MODULES = {"vit-pytorch": "vit_pytorch"}


def libraries() -> tuple[list[str], list[str]]:
    """(libraries that are installed, ours first; what the columns mean and what is missing)."""
    there = [name for name in COLUMNS if find_spec(MODULES.get(name, name)) is not None]
    short = [f"{COLUMNS[name]} = {name}" for name in there if COLUMNS[name] != name]
    notes = [f"Columns: {', '.join(short)}."]
    absent = [name for name in COLUMNS if name not in there]
    if absent:
        notes.append(f"Not installed: {', '.join(absent)} (pip install 'vitkit[bench]').")
    return there, notes


def build_all(vit: Vit, names: Iterable[str]) -> dict[str, nn.Module]:
    """The model of each library.

    Raises:
        AssertionError: one has more or fewer parameters than it should.
    """
    built = {name: _BUILDERS[name](vit) for name in names}
    expected = _parameters(vit)
    for name, model in built.items():
        count, due = count_parameters(model), expected + _extra_parameters(name, vit)
        assert count == due, f"{name}: {count:,} parameters in place of {due:,}"
    return built


def _parameters(vit: Vit) -> int:
    """Of the usual ViT."""
    width = vit.embed_dim
    # Weights and biases of queries, keys, values, projection and MLP; two norms.
    block = 12 * width**2 + (3 + 1 + 4 + 1) * width + 4 * width
    embed = (3 * vit.patch_size**2 + 1) * width
    tokens = (1 + vit.tokens) * width  # the class token, and a position of each
    return embed + tokens + vit.depth * block + 2 * width + (width + 1) * vit.num_classes


def _extra_parameters(name: str, vit: Vit) -> int:
    """What a library's ViT has more than the usual one."""
    if name != "vit-pytorch":
        return 0
    # Norms before and behind the patch projection; no biases of queries, keys and values.
    patch = 3 * vit.patch_size**2
    return 2 * patch + 2 * vit.embed_dim - 3 * vit.embed_dim * vit.depth


def _vitkit(vit: Vit) -> nn.Module:
    shape = {"img_size": vit.img_size, "patch_size": vit.patch_size, "in_chans": 3}
    trunk = {"embed_dim": vit.embed_dim, "depth": vit.depth, "num_heads": vit.num_heads}
    return vitkit.create_model(
        "vit_tiny_patch16_224", **shape, **trunk, num_classes=vit.num_classes
    )


def _timm(vit: Vit) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    model: nn.Module = VisionTransformer(
        img_size=vit.img_size,
        patch_size=vit.patch_size,
        embed_dim=vit.embed_dim,
        depth=vit.depth,
        num_heads=vit.num_heads,
        num_classes=vit.num_classes,
    )
    return model


def _vit_pytorch(vit: Vit) -> nn.Module:
    model: nn.Module = import_module("vit_pytorch").ViT(
        image_size=vit.img_size,
        patch_size=vit.patch_size,
        dim=vit.embed_dim,
        depth=vit.depth,
        heads=vit.num_heads,
        dim_head=vit.embed_dim // vit.num_heads,
        mlp_dim=4 * vit.embed_dim,
        num_classes=vit.num_classes,
    )
    return model


def _torchvision(vit: Vit) -> nn.Module:
    from torchvision.models import VisionTransformer

    model: nn.Module = VisionTransformer(
        image_size=vit.img_size,
        patch_size=vit.patch_size,
        hidden_dim=vit.embed_dim,
        num_layers=vit.depth,
        num_heads=vit.num_heads,
        mlp_dim=4 * vit.embed_dim,
        num_classes=vit.num_classes,
    )
    return model


def _transformers(vit: Vit) -> nn.Module:
    transformers = import_module("transformers")
    config = transformers.ViTConfig(
        image_size=vit.img_size,
        patch_size=vit.patch_size,
        hidden_size=vit.embed_dim,
        num_hidden_layers=vit.depth,
        num_attention_heads=vit.num_heads,
        intermediate_size=4 * vit.embed_dim,
        num_labels=vit.num_classes,
    )
    return _Logits(transformers.ViTForImageClassification(config).train())


class _Logits(nn.Module):
    """A model of transformers as a function from images to logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(pixel_values=images).logits
        return logits


_BUILDERS: dict[str, Callable[[Vit], nn.Module]] = {
    OURS: _vitkit,
    "timm": _timm,
    "vit-pytorch": _vit_pytorch,
    "torchvision": _torchvision,
    "transformers": _transformers,
}
