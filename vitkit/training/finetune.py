"""What of a pretrained model is trained: all, its head, adapters, its last blocks, its biases."""

from __future__ import annotations

from typing import Any

from torch import nn

from vitkit.errors import ConfigError
from vitkit.nn import Trunk, add_lora, classifiers
from vitkit.training.task_config import FinetuneConfig

__all__ = ["adapt", "freeze_batch_norm_statistics"]

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


def adapt(model: nn.Module, config: FinetuneConfig) -> nn.Module:
    """Freeze what the mode does not train, in place; in mode ``lora`` add the adapters.

    What was frozen before stays so. The classifier is trained in every mode.

    Args:
        model: with ``get_classifier()``; ``partial`` needs a trunk of blocks as well.
        config: mode and settings.

    Raises:
        ConfigError: the model has not what the mode asks for.
    """
    heads = classifiers(model)
    if not heads and (config.zero_head or config.mode != "full"):
        raise ConfigError(
            f"task.finetune: {type(model).__name__} has no get_classifier(), so its head is not "
            "known; only finetune.mode=full can train it"
        )
    if config.zero_head:
        for layer in heads:
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)
    still = {name for name, p in model.named_parameters() if not p.requires_grad}
    if config.mode == "lora":
        try:
            add_lora(model, rank=config.rank, alpha=config.alpha, targets=config.targets)
        except ValueError as error:
            raise ConfigError(f"task.finetune.targets: {error}") from error
    elif config.mode != "full":
        model.requires_grad_(False)
        for part in _trained(model, config):
            part.requires_grad_()
    for layer in heads:
        layer.requires_grad_()
    if config.freeze_patch_embed:
        _patch_embed(model).requires_grad_(False)
    for name, parameter in model.named_parameters():
        if name in still:
            parameter.requires_grad_(False)
    return model


def freeze_batch_norm_statistics(model: nn.Module) -> None:
    """Put every BatchNorm whose parameters are frozen into evaluation mode, statistics and all."""
    for module in model.modules():
        if isinstance(module, BatchNorm) and module.affine and not module.weight.requires_grad:
            module.eval()


def _trained(model: nn.Module, config: FinetuneConfig) -> list[Any]:
    """Modules and parameters that the mode trains, besides the head."""
    if config.mode == "bias":
        return [p for name, p in model.named_parameters() if name.endswith("bias")]
    if config.mode == "partial":
        blocks = _blocks(model)
        if config.last_blocks > len(blocks):
            raise ConfigError(
                f"task.finetune.last_blocks: given {config.last_blocks}, the model has "
                f"{len(blocks)}"
            )
        last_norms = [getattr(model, name, None) for name in ("norm", "fc_norm")]
        norms = [norm for norm in last_norms if isinstance(norm, nn.Module)]
        return [*blocks[len(blocks) - config.last_blocks :], *norms]
    return []


def _blocks(model: nn.Module) -> list[nn.Module]:
    for module in model.modules():
        if isinstance(module, Trunk):
            return list(module)
    blocks = getattr(model, "blocks", None)  # timm's name
    if isinstance(blocks, nn.Sequential | nn.ModuleList):
        return list(blocks)
    raise ConfigError(
        f"task.finetune.mode=partial: {type(model).__name__} has no list of blocks; "
        "use full, head or bias"
    )


def _patch_embed(model: nn.Module) -> nn.Module:
    found = getattr(model, "patch_embed", None)
    if not isinstance(found, nn.Module):
        raise ConfigError(
            f"task.finetune.freeze_patch_embed: {type(model).__name__} has no patch embedding"
        )
    return found
