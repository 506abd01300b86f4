"""What a person may say about how to train, as checked sections. Imports no torch.

Each class is one section of a run's configuration. Keys are checked strictly: a text is never
taken for a number, and an unknown key is a fault. ``vitkit.config`` composes the sections and
turns faults into plain lines.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

__all__ = [
    "EmaConfig",
    "OptimizerConfig",
    "ScheduleConfig",
    "Section",
    "TrainerConfig",
    "list_to_tuple",
    "usual_of",
]


def list_to_tuple(value: Any) -> Any:
    """A list as a tuple, all else as it is: YAML knows no tuples, and strict ones want them."""
    return tuple(value) if isinstance(value, list) else value


OPTIMIZERS = ("adamw", "sgd", "lion", "muon")

TIMM = "timm/"


def _optimizer_name(name: str) -> str:
    if name in OPTIMIZERS or (name.startswith(TIMM) and name != TIMM):
        return name
    raise ValueError(f"should be one of {', '.join(OPTIMIZERS)} or timm/<name>")


Beta = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel, extra="forbid", frozen=True, strict=True, allow_inf_nan=False):
    """What the sections share: no unknown keys, no conversion, no change after the check."""


USUAL: dict[str, dict[str, Any]] = {
    "muon": {"lr": 0.02, "momentum": 0.95, "betas": [0.9, 0.95]},
    "sgd": {"lr": 0.1, "weight_decay": 5e-4},
    "lion": {"lr": 1e-4, "weight_decay": 0.5, "betas": [0.9, 0.99]},
}
"""Optimiser -> what is usual for it where that is not AdamW's (Lion: arXiv 2302.06675)."""

TIMMS_OWN = ("betas", "eps")
"""What each of timm's optimisers has its own usual values for."""


def usual_of(name: str) -> dict[str, Any]:
    """What is usual for an optimiser where that is not AdamW's; timm's of the same name is the same
    but for :data:`TIMMS_OWN`.
    """
    usual = USUAL.get(name.removeprefix(TIMM), {})
    own = TIMMS_OWN if name.startswith(TIMM) else ()
    return {key: value for key, value in usual.items() if key not in own}


class OptimizerConfig(Section):
    """The optimiser; biases, norms, positions and tokens get no weight decay."""

    name: Annotated[str, AfterValidator(_optimizer_name)] = Field(
        "adamw",
        description="adamw, sgd, lion, muon (hidden matrices; AdamW trains the rest) or "
        "timm/<name> for any of timm's",
    )
    lr: float = Field(
        1e-3,
        gt=0,
        description="peak learning rate, reached after the warm-up; unless given 0.02 of muon, 0.1 "
        "of sgd, 1e-4 of lion",
    )
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
        0.05,
        ge=0,
        description="decoupled weight decay per step, times the learning rate (sgd: added to the "
        "gradient); unless given 5e-4 of sgd, 0.5 of lion",
    )
    betas: Annotated[tuple[Beta, Beta], BeforeValidator(list_to_tuple)] = Field(
        (0.9, 0.999),
        description="adamw, lion, timm: decay rates of the running means; unless given (0.9, 0.95) "
        "of muon's AdamW, (0.9, 0.99) of lion, timm's own of timm/<name>",
    )
    eps: float = Field(
        1e-8,
        gt=0,
        description="adamw, muon, timm: added to the denominator of the step; unless given timm's "
        "own of timm/<name>",
    )
    momentum: float = Field(
        0.9,
        ge=0,
        lt=1,
        description="sgd, muon, timm: decay rate of the running step; unless given 0.95 of muon",
    )
    ns_steps: int = Field(
        5, ge=1, description="muon: Newton-Schulz iterations that orthogonalise each step"
    )

    @model_validator(mode="before")
    @classmethod
    def _usual_for_its_name(cls, given: Any) -> Any:
        usual = usual_of(str(given.get("name"))) if isinstance(given, dict) else {}
        return {**usual, **given} if usual else given

    @model_serializer(mode="wrap")
    def _without_what_timm_chooses(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Written down, what was not given would have been given to whoever reads it."""
        plain: dict[str, Any] = handler(self)
        if not self.name.startswith(TIMM):
            return plain
        given = self.given_to_timm()
        return {key: value for key, value in plain.items() if key not in TIMMS_OWN or key in given}

    def given_to_timm(self) -> dict[str, Any]:
        """Those of :data:`TIMMS_OWN` that were given, for an optimiser of timm's."""
        given = {key: getattr(self, key) for key in TIMMS_OWN if key in self.model_fields_set}
        fields = type(self).model_fields
        if self.model_fields_set != set(fields):
            return given
        # Earlier versions wrote the whole section down, given or not: of such a one, those that are
        # AdamW's are taken for not given.
        return {key: value for key, value in given.items() if value != fields[key].default}


class ScheduleConfig(Section):
    """The learning rate over the training, in steps or in time."""

    name: Literal["cosine", "linear", "trapezoid", "one_cycle", "inverse_sqrt", "constant"] = Field(
        "cosine", description="shape of the learning rate after the warm-up"
    )
    warmup: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the training in which the rate rises from 0; unless given 0.3 of "
        "one_cycle",
    )
    decay: float = Field(
        0.2, gt=0, le=1, description="trapezoid: share of the training in which the rate falls"
    )
    min_lr: float = Field(
        0.0,
        ge=0,
        description="learning rate at the end, unless constant; of inverse_sqrt the lowest; not "
        "above optimizer.lr; other rates end at the same share of theirs",
    )

    @model_validator(mode="before")
    @classmethod
    def _warm_up_of_a_cycle(cls, given: Any) -> Any:
        is_cycle = isinstance(given, dict) and given.get("name") == "one_cycle"
        return {"warmup": 0.3, **given} if is_cycle else given

    @model_validator(mode="after")
    def _require_room(self) -> ScheduleConfig:
        if self.name == "trapezoid" and self.warmup + self.decay > 1:
            raise ValueError(
                f"warmup {self.warmup} and decay {self.decay} are shares of one training; together "
                "they are at most 1"
            )
        return self

    @model_validator(mode="after")
    def _require_a_warm_up(self) -> ScheduleConfig:
        if self.name == "inverse_sqrt" and self.warmup == 0:
            raise ValueError(
                "inverse_sqrt falls as the root of warmup over progress; give a warmup above 0, "
                "such as 0.1"
            )
        return self


class EmaConfig(Section):
    """An exponential moving average of the weights; when enabled, it is what is tested."""

    enabled: bool = Field(False, description="keep averaged weights, and test those")
    decay: float = Field(
        0.999, ge=0, lt=1, description="share of the average that one optimiser step keeps"
    )
    warmup: bool = Field(True, description="lower the decay in the first steps of a run")


class TrainerConfig(Section):
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
    monitor: Literal["auto", "val/acc", "val/loss"] = Field(
        "auto",
        description="validation metric that picks the best checkpoint; auto = val/acc where the "
        "task has it, else val/loss",
    )
    save_every_n_steps: int = Field(
        0, ge=0, description="optimiser steps between checkpoints; 0 = only at epoch ends"
    )
    save_every_n_epochs: int = Field(
        1,
        ge=1,
        description="epochs between checkpoints at epoch ends; the last and a better one always",
    )
    keep_checkpoints: int = Field(
        0,
        ge=0,
        description="newest checkpoints also kept as step-<n>.ckpt, every save_every_n_steps or "
        "else save_every_n_epochs; vitkit average takes them; 0 = none",
    )
    keep_best: bool = Field(
        False, description="of keep_checkpoints those of the best epochs by monitor, not the newest"
    )
    log_every_n_steps: int = Field(
        10, ge=1, description="optimiser steps between rows in the training log"
    )
    deterministic: bool = Field(
        True, description="use only kernels that give the same bits for the same seed"
    )
    compile: bool = Field(False, description="compile the network before training")
    grad_checkpointing: bool = Field(
        False,
        description="recompute each block in the backward pass: less memory, about a third more "
        "time, the same result",
    )
    wandb: bool = Field(False, description="also log to Weights & Biases (needs the wandb extra)")
