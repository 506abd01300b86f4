"""What a person may say about training, as checked sections. Imports no torch.

Each class is one section of a run's configuration. Keys are checked strictly: a text is never
taken for a number, and an unknown key is a fault. ``vitkit.config`` composes the sections and
turns faults into plain lines.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

__all__ = [
    "DistillConfig",
    "EmaConfig",
    "FinetuneConfig",
    "OptimizerConfig",
    "ScheduleConfig",
    "TaskConfig",
    "TrainerConfig",
]


def _list_to_tuple(value: Any) -> Any:
    """YAML knows lists only; strict tuples would refuse them."""
    return tuple(value) if isinstance(value, list) else value


OPTIMIZERS = ("adamw", "sgd", "lion", "muon")


def _optimizer_name(name: str) -> str:
    if name in OPTIMIZERS or (name.startswith("timm/") and name != "timm/"):
        return name
    raise ValueError(f"should be one of {', '.join(OPTIMIZERS)} or timm/<name>")


Beta = Annotated[float, Field(ge=0, lt=1)]
LoraTarget = Literal["q", "k", "v", "proj", "fc1", "fc2"]
Channels = Annotated[tuple[float, ...], BeforeValidator(_list_to_tuple)]
Stage = tuple[float, int]


def _stages(value: Any) -> Any:
    """[[0.3, 16], [0.6, 24]] as tuples: YAML knows lists only."""
    stages = tuple(map(_list_to_tuple, value)) if isinstance(value, list | tuple) else (None,)
    right = all(
        isinstance(s, tuple)
        and [type(v) for v in s] in ([float, int], [int, int])
        and 0 < s[0] <= 1
        and s[1] >= 1
        for s in stages
    )
    if not right or [s[0] for s in stages] != sorted({s[0] for s in stages}):
        raise ValueError(
            "should be a list of [share, pixels], the shares rising from above 0 up to 1, such as "
            "[[0.3, 16], [0.6, 24]]"
        )
    return tuple((float(share), side) for share, side in stages)


class _Section(BaseModel, extra="forbid", frozen=True, strict=True, allow_inf_nan=False):
    """What the sections share: no unknown keys, no conversion, no change after the check."""


class DistillConfig(_Section):
    """A teacher whose logits are a second goal, of the distillation token if the model has one."""

    teacher: str | None = Field(
        None, description="run folder, checkpoint, timm/<name>, or file of weights of `model`"
    )
    model: str | None = Field(
        None, description="name of the model that a bare file of weights belongs to"
    )
    mean: Channels | None = Field(
        None, description="a bare file's mean of each channel in [0, 1]; ImageNet's unless given"
    )
    std: Channels | None = Field(
        None, description="a bare file's standard deviation; ImageNet's unless given"
    )
    kind: Literal["soft", "hard"] = Field(
        "soft", description="match the teacher's distribution, or its decision"
    )
    weight: float = Field(0.5, ge=0, le=1, description="share of the teacher's part in the loss")
    temperature: float = Field(1.0, gt=0, description="soft: what both logits are divided by")


def _mode_alone(value: Any) -> Any:
    """``finetune: lora`` is short for ``finetune: {mode: lora}``."""
    return {"mode": value} if isinstance(value, str) else value


class FinetuneConfig(_Section):
    """What of the model is trained; the rest keeps the weights that it came with."""

    mode: Literal["full", "head", "lora", "partial", "bias"] = Field(
        "full",
        description="all weights, the head alone, low-rank adapters, the last blocks, or all "
        "biases; the head always",
    )
    last_blocks: int = Field(2, ge=1, description="partial: how many blocks are trained")
    rank: int = Field(8, ge=1, description="lora: inner width of each adapter")
    alpha: float = Field(16.0, gt=0, description="lora: scale of the adapters, times the rank")
    targets: Annotated[tuple[LoraTarget, ...], BeforeValidator(_list_to_tuple)] = Field(
        ("q", "v"), description="lora: adapted layers, some of q, k, v, proj, fc1, fc2"
    )
    freeze_patch_embed: bool = Field(False, description="do not train the patch embedding")
    zero_head: bool = Field(False, description="begin with a head of zeros")


class TaskConfig(_Section):
    """The loss and what is mixed into its images and targets."""

    name: Literal["classification"] = Field(
        "classification", description="what is learned: one class for each image"
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of each target spread evenly over all classes"
    )
    mixup: float = Field(
        0.0, ge=0, description="alpha of mixup's Beta(alpha, alpha) distribution; 0 = off"
    )
    cutmix: float = Field(
        0.0, ge=0, description="alpha of cutmix's Beta(alpha, alpha) distribution; 0 = off"
    )
    mix_prob: float = Field(
        1.0, ge=0, le=1, description="probability that mixup or cutmix is applied, if either is on"
    )
    mix_switch_prob: float = Field(
        0.5, ge=0, le=1, description="probability of cutmix rather than mixup, if both are on"
    )
    mix_mode: Literal["image", "batch", "pair", "elem"] = Field(
        "image",
        description="who draws ratio and box: each image with a partner of its own; or, partners "
        "by the reversed batch, the whole batch, each pair, each image",
    )
    progressive_sizes: Annotated[tuple[Stage, ...], BeforeValidator(_stages)] = Field(
        (),
        description="stages with smaller images, each [share of the training at which it ends, "
        "side in pixels]; the rest has the full size",
    )
    distill: DistillConfig = Field(
        default_factory=DistillConfig, description="learn from a teacher beside the labels"
    )
    finetune: Annotated[FinetuneConfig, BeforeValidator(_mode_alone)] = Field(
        default_factory=FinetuneConfig, description="what of a pretrained model is trained"
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced = weigh each class by the inverse of its training count"
    )


class OptimizerConfig(_Section):
    """The optimiser; biases, norms, positions and tokens get no weight decay."""

    name: Annotated[str, AfterValidator(_optimizer_name)] = Field(
        "adamw",
        description="adamw, sgd, lion, muon (hidden matrices; AdamW trains the rest) or "
        "timm/<name> for any of timm's",
    )
    lr: float = Field(1e-3, gt=0, description="peak learning rate, reached after the warm-up")
    adamw_lr: float = Field(
        4e-3, gt=0, description="muon: peak learning rate of what AdamW trains beside it"
    )
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="factor of the learning rate from each block to the one before"
    )
    head_lr_factor: float = Field(
        1.0, gt=0, description="factor of the learning rate of the classifier"
    )
    weight_decay: float = Field(
        0.05, ge=0, description="decoupled weight decay per step, times the learning rate"
    )
    betas: Annotated[tuple[Beta, Beta], BeforeValidator(_list_to_tuple)] = Field(
        (0.9, 0.999), description="adamw, lion: decay rates of the running means"
    )
    eps: float = Field(1e-8, gt=0, description="adamw: added to the denominator of the step")
    momentum: float = Field(
        0.9, ge=0, lt=1, description="sgd, muon, timm: decay rate of the running step"
    )
    ns_steps: int = Field(
        5, ge=1, description="muon: Newton-Schulz iterations that orthogonalise each step"
    )


class ScheduleConfig(_Section):
    """The learning rate over the training, in steps or in time."""

    name: Literal["cosine", "linear", "trapezoid", "one_cycle", "constant"] = Field(
        "cosine", description="shape of the learning rate after the warm-up"
    )
    warmup: float = Field(
        0.0, ge=0, lt=1, description="share of the training in which the rate rises from 0"
    )
    decay: float = Field(
        0.2, gt=0, le=1, description="trapezoid: share of the training in which the rate falls"
    )
    min_lr: float = Field(
        0.0,
        ge=0,
        description="learning rate at the end, unless constant; not above optimizer.lr",
    )


class EmaConfig(_Section):
    """An exponential moving average of the weights; when enabled, it is what is tested."""

    enabled: bool = Field(False, description="keep averaged weights, and test those")
    decay: float = Field(
        0.999, ge=0, lt=1, description="share of the average that one optimiser step keeps"
    )
    warmup: bool = Field(True, description="lower the decay in the first steps of a run")


class TrainerConfig(_Section):
    """How long, on what and how exactly to train."""

    max_epochs: int = Field(20, ge=1, description="length of the training, in epochs")
    max_time: float = Field(
        0.0,
        ge=0,
        description="seconds from start to results; the schedule ends with them if they end before "
        "max_epochs; 0 = no limit",
    )
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = Field(
        "32-true",
        description="number format of the forward and backward pass; auto = bf16-mixed where the "
        "hardware multiplies bfloat16, else 32-true",
    )
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = Field(
        "auto", description="kind of device to train on; auto = the fastest one present"
    )
    devices: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        1, description="number of devices, one process each; auto = all that are present"
    )
    strategy: Literal["auto", "ddp"] = Field(
        "auto", description="how several devices share the work; auto picks ddp for more than one"
    )
    accumulate_grad_batches: int = Field(
        1, ge=1, description="micro-batches that make up one optimiser step on each device"
    )
    gradient_clip: float = Field(
        0.0,
        ge=0,
        description="largest norm of the whole gradient; larger ones shrink to it; 0 = off",
    )
    early_stopping_patience: int = Field(
        0, ge=0, description="epochs without a better monitor before training stops; 0 = off"
    )
    monitor: Literal["val/acc", "val/loss"] = Field(
        "val/acc", description="validation metric that picks the best checkpoint"
    )
    save_every_n_steps: int = Field(
        0, ge=0, description="optimiser steps between checkpoints; 0 = only at epoch ends"
    )
    log_every_n_steps: int = Field(
        10, ge=1, description="optimiser steps between rows in the training log"
    )
    deterministic: bool = Field(
        True, description="use only kernels that give the same bits for the same seed"
    )
    compile: bool = Field(False, description="compile the network before training")
    wandb: bool = Field(False, description="also log to Weights & Biases (needs the wandb extra)")
