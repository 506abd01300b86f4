"""What is printed of a training before its first step."""

from __future__ import annotations

from pytorch_lightning import Trainer

from vitkit.app.assemble import Run
from vitkit.app.devices import multiplies_bfloat16
from vitkit.config import RunConfig, idle_settings
from vitkit.training.progress import clock

__all__ = ["announce"]


def announce(run: Run, trainer: Trainer, step: int | None) -> None:
    """Print what is trained, how, how long and where to.

    Args:
        run: that begins.
        trainer: its own.
        step: that it goes on from; None of a new one.
    """
    settings = run.config.trainer
    print(f"model  {run.config.model.name}: {run.job.num_parameters:,} parameters")
    print(*run.job.lines(), sep="\n")
    print(f"optim  {_rates(run.config)}")
    for line in idle_settings(run.config):
        print(f"note   {line}")
    device = trainer.strategy.root_device
    # Of Apple's chips torch does not say what they multiply.
    told = device.type != "mps" and not multiplies_bfloat16(device)
    if settings.precision == "bf16-mixed" and told:
        print("note   bfloat16 is emulated on this machine and slow; trainer.precision=auto is not")
    length = f"{run.plan.total_steps:,} steps"
    if settings.max_time:
        length = f"{clock(settings.max_time)} from the start, at most {length},"
    print(f"run    {run.folder}: {length} in {settings.precision}", flush=True)
    if step is not None:
        print(f"resume after step {step:,} of {run.plan.total_steps:,}", flush=True)


def _rates(config: RunConfig) -> str:
    """The optimiser and its rates, which may be what is usual for it, and its schedule."""
    optimizer, schedule = config.optimizer, config.schedule
    rates = f"lr {optimizer.lr:g}"
    if optimizer.name == "muon":
        rates += f", of AdamW beside it {optimizer.adamw_lr:g}"
    warmup = f", warm-up {schedule.warmup:g}" if schedule.warmup else ""
    rates += f", weight decay {optimizer.weight_decay:g}"
    return f"{optimizer.name}: {rates}; {schedule.name}{warmup}"
