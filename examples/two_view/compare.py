"""Our two-view models beside the public code, on the same random weights and pictures.

    python -m examples.two_view.compare croco  CHECKOUT
    python -m examples.two_view.compare dust3r CHECKOUT_OF_DUST3R --head dpt
    python -m examples.two_view.compare mast3r CHECKOUT_OF_MAST3R
    python -m examples.two_view.compare fast3r CHECKOUT_OF_FAST3R

Prints, for each output, the largest difference over the largest value of theirs. CHECKOUT is a
folder with the public repository (and its submodules in their places), which you get yourself: its
code is under non-commercial licences, and none of it is here. ``--real`` takes the published sizes.
"""

from __future__ import annotations

import argparse
import importlib
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from examples.two_view.croco import CroCo, hide_patches
from examples.two_view.dust3r import TwoView
from examples.two_view.fast3r import FUSION_LARGE, Fast3R
from examples.two_view.heads import PointMap
from examples.two_view.keys import load_published
from examples.two_view.sizes import Sizes

__all__ = ["main"]

SMALL = Sizes(64, 3, 4, 48, 12, 3)
HEIGHT, WIDTH = 64, 96
Outputs = dict[str, tuple[Tensor, Tensor]]


def main(arguments: Sequence[str] = ()) -> dict[str, float]:
    """Returns the relative errors that it prints."""
    options = _options(arguments)
    sys.path.insert(0, str(options.checkout.resolve()))
    torch.manual_seed(0)
    outputs = SYSTEMS[options.system](options)
    errors = {}
    for name, (ours, theirs) in outputs.items():
        if ours.shape != theirs.shape:
            raise SystemExit(f"{name}: {tuple(ours.shape)}, theirs {tuple(theirs.shape)}")
        errors[name] = float((ours - theirs).abs().max() / theirs.abs().max())
        print(f"{options.system} {name}: {errors[name]:.1e}")
    return errors


def _croco(options: argparse.Namespace) -> Outputs:
    sizes = _sized(options, SMALL)
    theirs = importlib.import_module("models.croco").CroCoNet(**_arguments(sizes, (HEIGHT, HEIGHT)))
    ours = CroCo(sizes)
    _same_weights(ours, theirs)
    first, second = _pictures(2, HEIGHT)  # their targets are cut from squares alone
    hidden = hide_patches(1, first.shape[2] * first.shape[3] // sizes.patch_size**2)
    theirs.mask_generator = _Given(hidden)
    with torch.inference_mode():
        prediction, _, _ = theirs(first, second)
        return {"pixels": (ours(first, second, hidden), prediction)}


def _dust3r(options: argparse.Namespace) -> Outputs:
    name = "dust3r.model"
    return _two_views(options, importlib.import_module(name).AsymmetricCroCo3DStereo, {})


def _mast3r(options: argparse.Namespace) -> Outputs:
    options.head = "catmlp+dpt"
    more = {"two_confs": True, "output_mode": "pts3d+desc24"}
    more["desc_conf_mode"] = ("exp", 0, math.inf)
    importlib.import_module("mast3r.utils.path_to_dust3r")
    return _two_views(options, importlib.import_module("mast3r.model").AsymmetricMASt3R, more)


def _two_views(options: argparse.Namespace, build: Any, more: dict[str, Any]) -> Outputs:
    sizes = _sized(options, SMALL)
    theirs = build(
        **{"output_mode": "pts3d", **more},
        head_type=options.head,
        depth_mode=("exp", -math.inf, math.inf),
        conf_mode=("exp", 1, math.inf),
        landscape_only=False,
        **_arguments(sizes, (HEIGHT, WIDTH)),
    )
    ours = TwoView(options.head, sizes)
    _same_weights(ours, theirs)
    views = [_view(picture, number) for number, picture in enumerate(_pictures(2))]
    with torch.inference_mode():
        found = ours(views[0]["img"], views[1]["img"])
        first, second = theirs(*views)
    outputs = _compared("first", found[0], first, "pts3d", "conf")
    return outputs | _compared("second", found[1], second, "pts3d_in_other_view", "conf")


def _fast3r(options: argparse.Namespace) -> Outputs:
    sizes = _sized(options, SMALL, FUSION_LARGE)
    module = importlib.import_module("fast3r.models.fast3r")
    theirs = module.Fast3R(
        encoder_args={
            "encoder_type": "croco",
            "img_size": max(HEIGHT, WIDTH),
            "patch_size": sizes.patch_size,
            "patch_embed_cls": "PatchEmbedDust3R",
            "embed_dim": sizes.enc_embed_dim,
            "depth": sizes.enc_depth,
            "num_heads": sizes.enc_num_heads,
        },
        decoder_args={
            "random_image_idx_embedding": True,
            "enc_embed_dim": sizes.enc_embed_dim,
            "embed_dim": sizes.dec_embed_dim,
            "depth": sizes.dec_depth,
            "num_heads": sizes.dec_num_heads,
        },
        head_args={
            "head_type": "dpt",
            "output_mode": "pts3d",
            "depth_mode": ("exp", -math.inf, math.inf),
            "conf_mode": ("exp", 1, math.inf),
            "landscape_only": False,
            "with_local_head": True,
            "patch_size": sizes.patch_size,
        },
    )
    ours = Fast3R(sizes)
    _same_weights(ours, theirs)
    views = [_view(picture, number) for number, picture in enumerate(_pictures(3))]
    drawn: list[Tensor] = []
    real = torch.randperm

    def noted(*given: Any, **more: Any) -> Tensor:
        drawn.append(real(*given, **more))
        return drawn[-1]

    torch.randperm = noted  # their names of the views, drawn inside
    try:
        with torch.inference_mode():
            results = theirs(views)
    finally:
        torch.randperm = real
    indices = torch.cat([torch.zeros(1, dtype=torch.long), drawn[0][: len(views) - 1] + 1])[None]
    with torch.inference_mode():
        found = ours([view["img"] for view in views], indices)
    outputs: Outputs = {}
    for number, (view, result) in enumerate(zip(found, results, strict=True)):
        outputs |= _compared(f"view {number}", view.shared, result, "pts3d_in_other_view", "conf")
        outputs |= _compared(
            f"view {number}, own frame", view.own, result, "pts3d_local", "conf_local"
        )
    return outputs


class _Given(nn.Module):
    """Hides what it was told to hide."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden

    def forward(self, tokens: Tensor) -> Tensor:
        return self.hidden


SYSTEMS = {"croco": _croco, "dust3r": _dust3r, "mast3r": _mast3r, "fast3r": _fast3r}


def _compared(
    name: str, ours: PointMap, theirs: dict[str, Tensor], points: str, confidence: str
) -> Outputs:
    outputs = {
        f"{name}, points": (ours.points, theirs[points]),
        f"{name}, confidence": (ours.confidence, theirs[confidence]),
    }
    if ours.descriptors is not None and ours.match_confidence is not None:
        outputs[f"{name}, descriptors"] = ours.descriptors, theirs["desc"]
        outputs[f"{name}, match confidence"] = ours.match_confidence, theirs["desc_conf"]
    return outputs


def _same_weights(ours: nn.Module, theirs: nn.Module) -> None:
    """Random weights that leave no bias at zero, in both; both in evaluation."""
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if parameter.ndim == 1:
                parameter.normal_(float("norm" in name and name.endswith("weight")), 0.1)
    load_published(ours, theirs.state_dict())
    ours.eval()
    theirs.eval()


def _arguments(sizes: Sizes, img_size: tuple[int, int]) -> dict[str, Any]:
    return asdict(sizes) | {"img_size": img_size}


def _sized(options: argparse.Namespace, small: Sizes, real: Sizes | None = None) -> Sizes:
    return (real or Sizes()) if options.real else small


def _pictures(count: int, width: int = WIDTH) -> list[Tensor]:
    return [torch.randn(1, 3, HEIGHT, width).clamp(-1, 1) for _ in range(count)]


def _view(picture: Tensor, number: int) -> dict[str, Any]:
    shape = torch.tensor([picture.shape[2:]])
    return {"img": picture, "true_shape": shape, "idx": number, "instance": str(number)}


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("system", choices=tuple(SYSTEMS))
    parser.add_argument("checkout", type=Path, help="folder of the public repository")
    parser.add_argument("--head", choices=("linear", "dpt"), default="linear", help="DUSt3R's")
    parser.add_argument("--real", action="store_true", help="the published sizes")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
