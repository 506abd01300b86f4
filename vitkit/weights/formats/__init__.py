"""The formats that are read, one file each; a new one is a file and a line of :data:`FORMATS`."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vitkit.weights.formats import (
    clip,
    compact,
    deit,
    dinov2,
    dinov3,
    google,
    gpt2,
    hugging_face,
    hugging_face_dinov2,
    hugging_face_dinov3,
    mae,
    timm,
    torchvision,
)
from vitkit.weights.formats.layout import (
    Format,
    Names,
    Resampling,
    Shapes,
    Translated,
    block_indices,
)
from vitkit.weights.formats.strangers import stranger

__all__ = [
    "FORMATS",
    "Format",
    "Names",
    "Resampling",
    "Shapes",
    "Translated",
    "block_indices",
    "recognise",
    "stranger",
    "unwrapped",
]

FORMATS: tuple[Format, ...] = (
    gpt2.GPT2,
    google.GOOGLE,
    torchvision.TORCHVISION,
    clip.CLIP,
    clip.HUGGING_FACE_CLIP,
    hugging_face_dinov2.DINOV2_REGISTERS,
    hugging_face_dinov2.DINOV2,
    hugging_face_dinov3.DINOV3,
    hugging_face.DEIT,
    hugging_face.MAE,
    hugging_face.VIT,
    compact.COMPACT,
    dinov2.DINOV2_REGISTERS,
    dinov2.DINOV2,
    dinov3.DINOV3,
    dinov3.DINOV3_TIMM,
    mae.MAE,
    deit.DEIT3,
    deit.DEIT,
    mae.MAE_FINETUNED,
    timm.TIMM,
    timm.OWN_COMPACT,
)
"""In the order in which they are tried: what has more of its own comes first."""

PREFIXES = ("model.", "module.", "backbone.", "encoder.", "net.")
"""Of Lightning, of data-parallel models, of what wraps an encoder."""


def recognise(shapes: Shapes) -> Format | None:
    """The format of a file by its names and shapes; None if it is none of ours."""
    if stranger(shapes):
        return None  # such as BEiT, whose names are timm's but for what only it has
    return next((each for each in FORMATS if each.recognise(shapes)), None)


def unwrapped(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Names without the prefixes that a wrapper put in front of them.

    A prefix that all names share goes. Of a file in which only some names have it, and which is of
    no format as it is, those are taken if they are: the rest is reported.

    Returns:
        The tensors, and the names that were left with the reason.
    """
    # torch.compile puts its own anywhere inside a name, where parts were compiled one by one.
    out = {name.replace("_orig_mod.", ""): tensor for name, tensor in tensors.items()}
    left = dict[str, str]()
    while out:
        shared = next((p for p in PREFIXES if all(name.startswith(p) for name in out)), None)
        if shared is None:
            break
        out = {name.removeprefix(shared): tensor for name, tensor in out.items()}
    if recognise({name: tuple(t.shape) for name, t in out.items()}) is not None:
        return out, left
    for prefix in PREFIXES:
        inner = {n.removeprefix(prefix): t for n, t in out.items() if n.startswith(prefix)}
        if inner and len(inner) < len(out):
            deeper, more = unwrapped(inner)
            if recognise({name: tuple(t.shape) for name, t in deeper.items()}) is not None:
                others = [name for name in out if not name.startswith(prefix)]
                return deeper, {**dict.fromkeys(others, f"not under {prefix}"), **more}
    return out, left
