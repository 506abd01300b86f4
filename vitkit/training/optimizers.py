"""Optimisers by name, over parameter groups that differ in weight decay, rate and rule."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch
from torch import nn

from vitkit.errors import ConfigError
from vitkit.nn import Attention, SwiGlu, classifier_names, classifiers
from vitkit.training.config import TIMM, OptimizerConfig
from vitkit.training.muon import Muon

__all__ = ["build_optimizer", "parameter_groups"]

NUMBERED = re.compile(r"(?:^|\.)(?:blocks|layers|stages)\.(\d+)\.")
"""The usual names of a stack of blocks, in our models and in timm's."""

LOOKAHEAD = "lookahead_"
"""What timm puts in front of the name of an optimiser that it wraps."""

EMBEDS = re.compile(r"(?:^|\.)(?:patch_embed|tokenizer|words|target_words)\.")
"""What stands before the blocks, whatever numbers its own layers have and wherever it is listed; a
table of words that the output shares is there too."""


def build_optimizer(
    model: nn.Module,
    config: OptimizerConfig,
    *,
    fused: bool = True,
    dtype: torch.dtype = torch.float32,
) -> torch.optim.Optimizer:
    """The optimiser that the config names.

    Args:
        model: whose parameters to train.
        config: name and settings.
        fused: torch's one-pass kernels, where the device has them; false: as torch chooses among
            the others. They unscale float16 gradients themselves, which forbids clipping, so
            float16 training turns them off.
        dtype: number format of Muon's products.

    Raises:
        ConfigError: timm has no such optimiser, or the model has no such layers.
    """
    groups = parameter_groups(model, config)
    lr, betas, eps = config.lr, config.betas, config.eps
    if config.name == "muon":
        return Muon(
            groups,
            momentum=config.momentum,
            ns_steps=config.ns_steps,
            betas=betas,
            eps=eps,
            dtype=dtype,
            fused=fused,
        )
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=config.momentum, fused=fused or None)
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, fused=fused or None)
    if config.name == "lion":
        lion: torch.optim.Optimizer = _timm_optimizers().Lion(groups, lr=lr, betas=betas)
        return lion
    return _timm_optimizer(groups, config)


def parameter_groups(model: nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Parameters by weight decay, learning rate and, under Muon, by who trains them.

    Biases, norms, gains (all of one dimension) and what the model's ``no_weight_decay()`` names
    (positions, class and register tokens) do not decay. Muon takes the hidden matrices: not the
    first layer, which reads pixels or words, nor the classifier, nor depthwise kernels. With
    ``layer_decay`` d, the rate of a block is d times that of the block after it; ``head_lr_factor``
    multiplies the classifier's. Frozen parameters are left out.

    Raises:
        ConfigError: ``layer_decay`` without numbered blocks, ``head_lr_factor`` without classifier.
    """
    named: Any = getattr(model, "no_weight_decay", set)
    spared = named()
    hidden = _hidden_matrices(model) if config.name == "muon" else {}
    depths = _depths(model)
    top = max(depths.values(), default=0)
    if config.layer_decay < 1.0 and top < 2:
        raise ConfigError(
            f"optimizer.layer_decay: {type(model).__name__} has no blocks that are numbered; leave "
            "it out"
        )
    own_rate = set(classifier_names(model)) if config.head_lr_factor != 1.0 else set()
    if config.head_lr_factor != 1.0 and not own_rate:
        raise ConfigError(
            f"optimizer.head_lr_factor: {type(model).__name__} does not say which layer is its "
            "classifier (get_classifier()); leave it out"
        )
    groups: defaultdict[tuple[bool, bool, int, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and name not in spared
            muon = decays and name in hidden
            distance = top - depths[name] if config.layer_decay < 1.0 else 0
            groups[not muon, not decays, distance, name in own_rate].append(parameter)
    rows = {id(p): hidden[name] for name, p in model.named_parameters() if name in hidden}
    made = []
    for key, params in sorted(groups.items(), key=lambda item: item[0]):
        plain, still, distance, is_head = key
        base = config.adamw_lr if plain and config.name == "muon" else config.lr
        base *= config.head_lr_factor if is_head else 1.0
        group: dict[str, Any] = {
            "params": params,
            "lr": base * config.layer_decay**distance,
            "weight_decay": 0.0 if still else config.weight_decay,
        }
        if not plain:
            group |= {"muon": True, "rows": [rows[id(p)] for p in params]}
        made.append(group)
    return made


def _hidden_matrices(model: nn.Module) -> dict[str, list[int]]:
    """Name of each weight that is a matrix between hidden layers, and the heights stacked in it."""
    names = {module: name for name, module in model.named_modules()}
    layers = [m for m in names if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Embedding)]
    outer = _outer_layers(model, layers)
    hidden = {}
    for layer in layers:
        weight = layer.weight
        narrow = weight.ndim < 2 or weight[0].numel() < 2 or weight.shape[1] == 1
        if layer in outer or isinstance(layer, nn.Embedding) or narrow:
            continue
        hidden[f"{names[layer]}.weight"] = _heights(model, names[layer], weight.shape[0])
    return hidden


def _outer_layers(model: nn.Module, layers: Sequence[nn.Module]) -> set[nn.Module]:
    """Embedding and classifier layers, which Muon leaves to AdamW."""
    heads = classifiers(model)
    if any(isinstance(layer, nn.Embedding) for layer in layers):
        # Words come in by an embedding, whatever its place; it may be the output layer as well.
        head = getattr(model, "head", None)
        return {*heads, head} if isinstance(head, nn.Linear) else {*heads}
    return {*layers[:1], *(heads or layers[-1:])}


def _heights(model: nn.Module, name: str, rows: int) -> list[int]:
    """The matrices stacked in a layer: queries, keys and values; gate and value of a GLU."""
    holder, _, own = name.rpartition(".")
    module = model.get_submodule(holder)
    if isinstance(module, Attention) and own in ("qkv", "kv"):
        kv = module.num_kv_heads * module.head_dim
        return [module.num_heads * module.head_dim, kv, kv] if own == "qkv" else [kv, kv]
    parts = 3 if own == "qkv" else 2 if own == "fc1" and isinstance(module, SwiGlu) else 1
    return [rows // parts] * parts if rows % parts == 0 else [rows]


def _depths(model: nn.Module) -> dict[str, int]:
    """Layer of each parameter: 0 before the blocks, 1 to n in them, n + 1 behind."""
    names = [name for name, _ in model.named_parameters()]
    before = {name for name in names if _is_embedding(name)}
    found = [None if name in before else NUMBERED.search(name) for name in names]
    numbers = [int(match.group(1)) if match else None for match in found]
    behind = max((n for n in numbers if n is not None), default=-1) + 2
    depths, outside = {}, 0
    for name, number in zip(names, numbers, strict=True):
        if number is not None:
            outside = behind
        depths[name] = 0 if name in before else outside if number is None else number + 1
    return depths


def _is_embedding(name: str) -> bool:
    """Of a stem or a table of words; one inside a block belongs to the block."""
    embeds, numbered = EMBEDS.search(name), NUMBERED.search(name)
    return embeds is not None and (numbered is None or embeds.start() < numbered.start())


def _timm_optimizers() -> Any:
    """``timm.optim``, imported when first asked for: it brings all of timm, which takes seconds."""
    return import_module("timm.optim")


def _timm_optimizer(groups: list[dict[str, Any]], config: OptimizerConfig) -> torch.optim.Optimizer:
    name = config.name.removeprefix(TIMM)
    # Each of timm's has its own defaults; what was given is handed on, for it to take or refuse.
    more = config.given_to_timm()
    if name.lower().removeprefix(LOOKAHEAD) not in _timm_optimizers().list_optimizers():
        raise ConfigError(
            f"optimizer.name: timm has no optimiser {name!r}; timm.optim.list_optimizers() lists "
            "what it has"
        )
    try:
        optimizer: torch.optim.Optimizer = _timm_optimizers().create_optimizer_v2(
            groups, opt=name, lr=config.lr, weight_decay=0.0, momentum=config.momentum, **more
        )
    except (AssertionError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"optimizer.name={config.name} refuses its settings: {error}") from error
    ignored = [key for key, value in more.items() if optimizer.defaults.get(key) != value]
    fields = OptimizerConfig.model_fields
    if config.momentum != fields["momentum"].default and "momentum" not in optimizer.defaults:
        ignored.append("momentum")
    if ignored:
        raise ConfigError(f"optimizer.{ignored[0]}: {config.name} has none; leave it out")
    return optimizer
