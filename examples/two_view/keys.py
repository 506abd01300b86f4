"""Names of published files and ours: the same, but for fused keys and values, and for doubles.

Published cross attention holds ``projq``, ``projk``, ``projv``; ours ``q`` and ``kv``. A published
dense head holds four convolutions under two names each; ours under one. A DUSt3R file may lack the
second decoder, which then starts as a copy of the first.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from vitkit.errors import WeightsError

__all__ = ["fast3r_from_dust3r", "from_published", "load_published", "to_published"]

State = dict[str, Tensor]

DOUBLE = re.compile(r"(.*\bscratch)\.layer([1-4])_rn\.(.*)")
SINGLE = re.compile(r"(.*\bscratch)\.layer_rn\.([0-3])\.(.*)")
OTHERS_COPY = "dec_blocks2."


def from_published(state: State) -> State:
    """Published names -> ours.

    Raises:
        WeightsError: keys without their values, or the reverse.
    """
    out: State = {}
    for name, tensor in state.items():
        if double := DOUBLE.fullmatch(name):
            stem, number, rest = double.groups()
            out.setdefault(f"{stem}.layer_rn.{int(number) - 1}.{rest}", tensor)
        elif ".cross_attn.projk." in name:
            values = state.get(name.replace(".projk.", ".projv."))
            if values is None:
                raise WeightsError(f"{name} has no projv beside it: is the file cut?")
            out[name.replace(".projk.", ".kv.")] = torch.cat([tensor, values])
        elif ".cross_attn.projv." in name:
            if name.replace(".projv.", ".projk.") not in state:
                raise WeightsError(f"{name} has no projk beside it: is the file cut?")
        else:
            out[name.replace(".cross_attn.projq.", ".cross_attn.q.")] = tensor
    return out


def to_published(state: State) -> State:
    """Our names -> published ones."""
    out: State = {}
    for name, tensor in state.items():
        if ".cross_attn.kv." in name:
            keys, values = tensor.chunk(2)
            out[name.replace(".kv.", ".projk.")] = keys
            out[name.replace(".kv.", ".projv.")] = values
            continue
        out[name.replace(".cross_attn.q.", ".cross_attn.projq.")] = tensor
        if single := SINGLE.fullmatch(name):
            stem, index, rest = single.groups()
            out[f"{stem}.layer{int(index) + 1}_rn.{rest}"] = tensor
    return out


def load_published(model: nn.Module, state: State) -> None:
    """Put a published state dict into one of the models here.

    Raises:
        WeightsError: names or shapes that are not the model's; the first few are named.
    """
    given = from_published(state)
    own = model.state_dict()
    twins = {name for name in own if name.startswith(OTHERS_COPY)}
    if twins and not twins & set(given):
        given |= {name: given[_of_first(name)] for name in twins if _of_first(name) in given}
    faults = [f"{name} is missing" for name in own if name not in given]
    faults += [f"{name} is unknown" for name in given if name not in own]
    faults += [
        f"{name} is {tuple(given[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in given and given[name].shape != tensor.shape
    ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise WeightsError(
            f"these weights do not fit the model: {'; '.join(faults[:3])}{more}; "
            "build the model with the sizes and the head that the file names"
        )
    model.load_state_dict(given)


def fast3r_from_dust3r(state: State, model: nn.Module) -> State:
    """What a new Fast3R takes from a DUSt3R file: the encoder, and the first head where it fits.

    Args:
        state: DUSt3R's, published names.
        model: the Fast3R to be started.

    Returns:
        Part of the model's state dict, to be loaded over it. The head comes whole or not at all: a
        fusion wider than DUSt3R's decoder has another one.

    Raises:
        WeightsError: no encoder in the file, or one of another size.
    """
    own = model.state_dict()
    given = from_published(state)
    encoder = {
        f"encoder.{name}": tensor
        for name, tensor in given.items()
        if name.startswith(("patch_embed.", "enc_blocks.", "enc_norm."))
    }
    wanted = {name for name in own if name.startswith("encoder.")}
    if set(encoder) != wanted or any(encoder[name].shape != own[name].shape for name in wanted):
        raise WeightsError(
            "these weights hold no encoder of this size; give a DUSt3R file with the same "
            "enc_embed_dim and enc_depth"
        )
    head = {
        name.replace("downstream_head1.", "downstream_head.", 1): tensor
        for name, tensor in given.items()
        if name.startswith("downstream_head1.")
    }
    wanted = {name for name in own if name.startswith("downstream_head.")}
    fits = set(head) == wanted and all(head[name].shape == own[name].shape for name in wanted)
    return encoder | (head if fits else {})


def _of_first(name: str) -> str:
    return name.replace(OTHERS_COPY, "dec_blocks.", 1)
