"""Losses, mixing, schedules, optimisers, averaging: each against a closed form or torch."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from vitkit.app import assemble, evaluate, resume, train
from vitkit.app.jobs import job_class
from vitkit.config import RunConfig, load_config
from vitkit.data.own import data_from_datasets
from vitkit.errors import ConfigError, TrainingError, UnknownNameError
from vitkit.models.registry import create_model
from vitkit.training.averaging import average_decay
from vitkit.training.base import TrainingTask, step_seed
from vitkit.training.budget import StepPlan
from vitkit.training.checkpoints import Checkpoints
from vitkit.training.config import OptimizerConfig, ScheduleConfig
from vitkit.training.loggers import CsvMetrics
from vitkit.training.losses import balanced_class_weights, classification_loss
from vitkit.training.mixing import mix_batch
from vitkit.training.optimizers import build_optimizer, parameter_groups
from vitkit.training.progress import TrainingProgress
from vitkit.training.schedules import learning_rate_factor
from vitkit.training.stopping import EarlyStop
from vitkit.training.task import ClassificationTask
from vitkit.weights import read_checkpoint


def test_loss_of_smoothed_weighted_targets() -> None:
    logits, targets = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, 1])
    soft = F.one_hot(targets, 4) * 0.9 + 0.1 / 4
    want = -(soft * logits.float().log_softmax(1)).sum(1).mean().double()
    torch.testing.assert_close(
        classification_loss(logits, targets, label_smoothing=0.1).double(), want, rtol=1e-6, atol=0
    )
    hard = classification_loss(logits, F.one_hot(targets, 4).float(), label_smoothing=0.1)
    torch.testing.assert_close(hard.double(), want, rtol=1e-6, atol=0)
    weights = balanced_class_weights((10, 30, 0))
    assert weights.tolist() == pytest.approx([2.0, 2 / 3, 0.0])
    assert (weights * torch.tensor([10, 30, 0])).sum() == 40


@given(st.integers(1, 9), st.sampled_from([(0.4, 0.0), (0.0, 1.0), (0.8, 1.0)]), st.integers(0, 99))
def test_mixed_targets_tell_the_share_of_pixels(
    batch: int, alphas: tuple[float, float], seed: int
) -> None:
    """Constant images of value = class: the mean pixel must equal the mean of the target."""
    torch.manual_seed(seed)
    targets = torch.randint(0, 5, (batch,))
    images = targets.float()[:, None, None, None].expand(batch, 2, 7, 9)
    mixed, goal = mix_batch(images, targets, num_classes=5, mixup=alphas[0], cutmix=alphas[1])
    torch.testing.assert_close(goal.sum(1), torch.ones(batch))
    expected = (goal * torch.arange(5.0)).sum(1)
    torch.testing.assert_close(mixed.mean((1, 2, 3)), expected, rtol=1e-4, atol=1e-5)
    if alphas[0] == 0.0:  # cutmix copies pixels, it blends none
        assert set(mixed.unique().tolist()) <= set(targets.float().tolist())


def test_mix_prob_zero_changes_nothing() -> None:
    images, targets = torch.rand(4, 3, 5, 5), torch.tensor([0, 1, 2, 3])
    mixed, goal = mix_batch(images, targets, num_classes=4, mixup=1.0, cutmix=1.0, prob=0.0)
    assert torch.equal(mixed, images)
    assert torch.equal(goal, F.one_hot(targets, 4).float())


def test_schedules() -> None:
    def at(progress: float, kind: str = "cosine", **more: float) -> float:
        return learning_rate_factor(progress, kind=kind, warmup=0.1, floor=0.1, **more)

    for kind in ("cosine", "linear", "trapezoid", "constant"):
        assert [at(p, kind) for p in (0.0, 0.04, 0.1)] == pytest.approx([0.0, 0.4, 1.0])
    assert at(0.325) == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4)))
    assert at(0.55) == at(0.55, "one_cycle") == pytest.approx(0.55)
    assert at(0.775, "linear") == pytest.approx(0.1 + 0.9 * 0.25)
    assert at(0.6, "constant") == at(0.6, "trapezoid", decay=0.4) == 1.0
    assert at(0.8, "trapezoid", decay=0.4) == pytest.approx(0.55)
    assert at(0.05, "one_cycle") == pytest.approx((1 + 1 / 25) / 2)
    for kind in ("cosine", "linear", "trapezoid", "one_cycle"):
        assert at(1.0, kind) == at(2.0, kind) == pytest.approx(0.1)


@pytest.mark.parametrize(("width", "warmup", "total"), [(512, 40, 1000), (128, 7, 30)])
def test_inverse_sqrt_is_the_schedule_of_2017(width: int, warmup: int, total: int) -> None:
    """width^-0.5 min(step^-0.5, step warmup^-1.5): its peak is the base rate here."""
    plan = StepPlan(total, 1)
    peak = (width * warmup) ** -0.5
    for step in range(1, total + 1):
        want = width**-0.5 * min(step**-0.5, step * warmup**-1.5)
        factor = learning_rate_factor(
            plan.progress(step - 1), kind="inverse_sqrt", warmup=warmup / (total + 1)
        )
        assert peak * factor == pytest.approx(want, rel=1e-12)
    last = learning_rate_factor(1.0, kind="inverse_sqrt", warmup=0.01, floor=0.25)
    assert last == 0.25


def test_one_cycle_is_torchs() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.0, total_steps=101, pct_start=0.31, cycle_momentum=False
    )
    for step in range(101):
        # torch puts the peak at pct_start * total_steps - 1
        ours = learning_rate_factor(step / 100, kind="one_cycle", warmup=0.3031, floor=4e-6)
        assert ours == pytest.approx(theirs.get_last_lr()[0], abs=1e-5)
        optimizer.step()
        theirs.step()


def test_a_cycle_rises_as_torchs_unless_told_otherwise() -> None:
    assert ScheduleConfig(name="one_cycle").warmup == 0.3
    assert ScheduleConfig(name="one_cycle", warmup=0.0).warmup == 0.0
    assert ScheduleConfig().warmup == 0.0


@given(st.integers(1, 40), st.integers(1, 5))
def test_progress_goes_by_steps_or_by_time(steps: int, epochs: int) -> None:
    plan = StepPlan(steps, epochs)
    shares = [plan.progress(step) for step in range(plan.total_steps)]
    assert shares == sorted(set(shares))
    assert shares[0] > 0.0 and shares[-1] < 1.0
    plan.time_done = 0.75
    assert [plan.progress(step) for step in range(plan.total_steps)] == [
        max(share, 0.75) for share in shares
    ]


def test_weight_decay_spares_biases_norms_positions_and_tokens() -> None:
    model = create_model("vit_mini_patch4_32", class_token=True, global_pool="token")
    groups = parameter_groups(model, OptimizerConfig(weight_decay=0.05))
    names = {id(p): name for name, p in model.named_parameters()}
    spared = {names[id(p)] for g in groups if not g["weight_decay"] for p in g["params"]}
    decayed = {names[id(p)] for g in groups if g["weight_decay"] for p in g["params"]}
    assert {"pos_embed", "cls_token", "norm.weight", "head.bias"} <= spared
    assert "blocks.0.attn.qkv.weight" in decayed
    assert spared | decayed == set(names.values())
    assert all(name.endswith("weight") for name in decayed)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_optimiser_steps_equal_torchs_plain_loop(name: str) -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 3, bias=False), nn.Linear(5, 3, bias=False)
    theirs.load_state_dict(ours.state_dict())
    config = OptimizerConfig(name=name, lr=0.1, weight_decay=0.2)
    one = build_optimizer(ours, config)
    two: torch.optim.Optimizer
    if name == "sgd":
        two = torch.optim.SGD(theirs.parameters(), 0.1, 0.9, weight_decay=0.2, foreach=False)
    else:
        two = torch.optim.AdamW(theirs.parameters(), 0.1, weight_decay=0.2, foreach=False)
    for _ in range(5):
        x = torch.randn(4, 5)
        for model, optimizer in ((ours, one), (theirs, two)):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-5, atol=1e-6)


def test_averaging_is_the_recurrence_and_is_what_gets_tested(
    tiny: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The average after every step, by the formula, from the weights Lightning trained."""
    from vitkit.training.averaging import WeightAverage

    seen: list[torch.Tensor] = []
    original = WeightAverage.on_train_batch_end

    def spy(self, trainer, module, *args):  # type: ignore[no-untyped-def]
        seen.append(module.model.head.weight.detach().clone())
        original(self, trainer, module, *args)

    start: list[torch.Tensor] = []
    begin = WeightAverage.on_fit_start

    def first(self, trainer, module):  # type: ignore[no-untyped-def]
        start.append(module.model.head.weight.detach().clone())
        begin(self, trainer, module)

    monkeypatch.setattr(WeightAverage, "on_train_batch_end", spy)
    monkeypatch.setattr(WeightAverage, "on_fit_start", first)
    result = train(tiny("ema.enabled=true", "ema.decay=0.5"), progress=False)
    average = start[0].double()
    for n, weight in enumerate(seen):
        decay = min(0.5, (1 + n) / (10 + n))
        assert average_decay(n, 0.5, warmup=True) == decay
        average = decay * average + (1 - decay) * weight.double()
    saved = read_checkpoint(result.checkpoint)
    assert saved.averaged is not None
    torch.testing.assert_close(
        saved.averaged["head.weight"].double(), average, rtol=1e-5, atol=1e-7
    )
    assert torch.equal(saved.trained["head.weight"], seen[-1])
    assert saved.weights_name == "averaged"
    assert "averaged" in str(result.record.facts["weights"])


def test_step_seeds_differ_by_every_coordinate() -> None:
    base = step_seed(0, 0, 0, 0)
    others = [
        step_seed(1, 0, 0, 0),
        step_seed(0, 1, 0, 0),
        step_seed(0, 0, 1, 0),
        step_seed(0, 0, 0, 1),
    ]
    assert len({base, *others}) == 5
    assert all(0 <= seed < 2**63 for seed in (base, *others))


def test_csv_is_cut_back_to_a_step_and_takes_new_columns(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    log = CsvMetrics(path)
    for step in range(4):
        log.log_metrics({"loss": float(step)}, step)
    log.save()
    log.log_metrics({"acc": 0.5}, 4)
    log.save()
    assert path.read_text().splitlines()[0] == "step,epoch,loss,acc"
    again = CsvMetrics(path, keep_before_step=2)
    again.log_metrics({"loss": 9.0}, 2)
    again.save()
    assert path.read_text().splitlines()[1:] == ["0,,0.0,", "1,,1.0,", "2,,9.0,"]


def test_early_stopping_tests_the_best_weights(tiny: Callable[..., RunConfig]) -> None:
    config = tiny("trainer.early_stopping_patience=1", "trainer.max_epochs=30", "optimizer.lr=1e-9")
    result = train(config, progress=False)
    assert result.checkpoint.name == "best.ckpt"
    assert float(str(result.record.facts["epochs"])) < 30
    assert str(result.record.facts["weights"]).startswith("best")
    (result.folder / "results.json").unlink()  # as if it had been stopped in its test
    again = resume(result.folder, progress=False)
    assert again.record.facts["epochs"] == result.record.facts["epochs"]
    assert again.record.metrics["test/loss"] == result.record.metrics["test/loss"]
    assert again.metrics == result.metrics


def test_early_stopping_tells_of_a_metric_that_is_not_finite(
    tiny: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = ClassificationTask.val_metrics

    def broken(self: ClassificationTask, sums: Any) -> dict[str, float]:
        found = measure(self, sums)
        return found | {"loss": math.nan} if self.current_epoch == 1 else found

    monkeypatch.setattr(ClassificationTask, "val_metrics", broken)
    config = tiny("trainer.early_stopping_patience=5", "trainer.monitor=val/loss")
    said = r"val/loss became NaN or infinite in epoch 2; try .*last checkpoint is still good"
    with pytest.raises(TrainingError, match=said):
        train(config, progress=False)
    last = Path(str(config.run.dir)) / "checkpoints" / "last.ckpt"
    assert read_checkpoint(last).epoch == 0


def _validated(folder: Path, name: str) -> list[float]:
    """A validation metric of each epoch, from the log."""
    with (folder / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


@pytest.mark.parametrize("maximize", [True, False])
def test_the_best_is_the_best_and_no_number_is_none(tmp_path: Path, maximize: bool) -> None:
    checkpoints = Checkpoints(tmp_path, monitor="m", maximize=maximize)
    better = []
    for epoch, value in enumerate((math.nan, 0.5, 0.7, 0.6, math.nan, 0.2, 0.2)):
        trainer: Any = SimpleNamespace(
            callback_metrics={"m": torch.tensor(value)}, current_epoch=epoch
        )
        better += [epoch] if checkpoints._improved(trainer) else []
    assert better == ([1, 2] if maximize else [1, 5])
    assert checkpoints.best_epoch == better[-1]
    other: Any = SimpleNamespace(callback_metrics={"else": torch.tensor(1.0)}, current_epoch=7)
    assert not checkpoints._improved(other)


@pytest.mark.parametrize(
    ("monitor", "wanted"),
    [
        ("auto", ("val/acc", True)),
        ("val/acc", ("val/acc", True)),
        ("val/loss", ("val/loss", False)),
    ],
)
def test_more_accuracy_is_better_and_less_loss(
    tiny: Callable[..., RunConfig], monitor: str, wanted: tuple[str, bool]
) -> None:
    config = tiny(f"trainer.monitor={monitor}", "trainer.early_stopping_patience=1")
    run = assemble.Run(config, job_class(config)(config), Path())
    assert run.monitor == wanted
    checkpoints = assemble.make_checkpoints(run)
    assert (checkpoints.monitor, checkpoints.maximize) == wanted
    callbacks = assemble.make_callbacks(run, TrainingProgress(run.plan, 16), checkpoints)
    (stop,) = (callback for callback in callbacks if isinstance(callback, EarlyStop))
    assert (stop.monitor, stop.mode) == (wanted[0], "max" if wanted[1] else "min")


def test_a_run_keeps_its_best_epoch_and_stops_behind_it(tiny: Callable[..., RunConfig]) -> None:
    """Patience 1: the first epoch that is no better is the last, and it is not what is tested."""
    more = ("trainer.early_stopping_patience=1", "trainer.max_epochs=30", "optimizer.lr=1e-3")
    result = train(tiny(*more), progress=False)
    accuracies = _validated(result.folder, "val/acc")
    best = accuracies.index(max(accuracies))
    assert 1 <= best < 28  # one that waits for the worst would have stopped before
    assert accuracies[: best + 1] == sorted(set(accuracies))
    assert len(accuracies) == best + 2
    kept = result.folder / "checkpoints" / "best.ckpt"
    assert read_checkpoint(kept).epoch == best
    measured = evaluate(kept, split="val", progress=False).metrics["val/acc"]
    assert measured == pytest.approx(max(accuracies))
    tested, last = (
        evaluate(kept.with_name(name), split="test", progress=False).metrics["test/loss"]
        for name in ("best.ckpt", "last.ckpt")
    )
    assert result.metrics["test/loss"] == tested != last
    losses = _validated(result.folder, "val/loss")
    assert result.metrics["val/acc"] == pytest.approx(accuracies[best])
    assert result.metrics["val/loss"] == pytest.approx(losses[best], rel=1e-6)
    assert result.metrics["val/loss"] != pytest.approx(losses[-1], rel=1e-6)


class _Elsewhere:
    """A task as it would be on an accelerator, where nobody looks at each loss."""

    def __init__(self, task: TrainingTask) -> None:
        self.__dict__["task"] = task

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(type="cuda") if name == "device" else getattr(self.task, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.task, name, value)


def test_an_accelerator_is_asked_every_20_steps_for_the_first_bad_one() -> None:
    looks: list[tuple[int, int]] = []
    bad_step = torch.zeros((), dtype=torch.int64)
    task: Any = SimpleNamespace(device=SimpleNamespace(type="cuda"), bad_step=bad_step)
    task.stop_if_not_finite = lambda: looks.append((task.global_step + 1, int(task.bad_step)))
    bad = {24: math.nan, 25: math.inf, 41: math.nan}
    for step in range(1, 61):
        task.global_step = step - 1
        TrainingTask.watch(task, torch.tensor(bad.get(step, 1.0), requires_grad=True))
    assert looks == [(20, 0), (40, 24), (60, 24)]


@pytest.mark.parametrize(("other", "told"), [(17, 17), (19, 18), (0, 18)])
def test_several_processes_stop_together_at_the_first_bad_loss_of_any(
    other: int, told: int
) -> None:
    """Also on CPUs: this one's is bad at step 18, the other's at 17, at 19 or never."""
    task: Any = SimpleNamespace(device=SimpleNamespace(type="cpu"), plan=StepPlan(5, 9))
    task.bad_step = torch.zeros((), dtype=torch.int64)

    def reduce(own: Tensor, reduce_op: str) -> Tensor:
        assert reduce_op == "min"
        theirs = torch.tensor(other) if other else torch.full_like(own, torch.iinfo(own.dtype).max)
        return torch.minimum(own, theirs)

    task.trainer = SimpleNamespace(world_size=2, strategy=SimpleNamespace(reduce=reduce))
    task._first_bad_step = lambda: TrainingTask._first_bad_step(task)
    task.stop_if_not_finite = lambda: TrainingTask.stop_if_not_finite(task)
    for step in range(1, 20):
        task.global_step = step - 1
        TrainingTask.watch(task, torch.tensor(math.nan if step == 18 else 1.0))
    task.global_step = 19
    with pytest.raises(TrainingError, match=rf"NaN or infinite at step {told} \(epoch 4\)"):
        TrainingTask.watch(task, torch.tensor(1.0))


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("bad", [math.nan, -math.inf])
@pytest.mark.parametrize(("step", "accumulate"), [(4, 1), (6, 1), (6, 2)])
def test_the_step_of_a_bad_loss_is_told_and_nothing_of_it_is_kept(
    tiny: Callable[..., RunConfig],
    monkeypatch: pytest.MonkeyPatch,
    elsewhere: bool,
    bad: float,
    step: int,
    accumulate: int,
) -> None:
    """There are 3 an epoch; on an accelerator it is noticed by the end of its own."""
    count = 0

    def loss(*args: Any, **kwargs: Any) -> torch.Tensor:
        nonlocal count
        count += 1
        found = classification_loss(*args, **kwargs)
        return found * bad if count == step * accumulate else found

    monkeypatch.setattr("vitkit.training.task.classification_loss", loss)
    watch = TrainingTask.watch
    if elsewhere:
        monkeypatch.setattr(
            TrainingTask,
            "watch",
            lambda self, loss: watch(_Elsewhere(self), loss),  # type: ignore[arg-type]
        )
    config = tiny(f"trainer.accumulate_grad_batches={accumulate}")
    with pytest.raises(TrainingError, match=rf"NaN or infinite at step {step} \(epoch 2\);"):
        train(config, progress=False)
    assert count == (6 if elsewhere else step) * accumulate
    folder = Path(str(config.run.dir)) / "checkpoints"
    kept = read_checkpoint(folder / "last.ckpt")
    assert kept.step == 3
    assert all(weight.isfinite().all() for weight in kept.trained.values())


@pytest.mark.parametrize("clip", ["0.0", "0.01"])
def test_gradients_are_clipped_in_bfloat16_too(
    tiny: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, clip: str
) -> None:
    """The norm that the optimiser sees, with its fused kernel."""
    from vitkit.training.task import ClassificationTask

    norms: list[float] = []
    original = ClassificationTask.optimizer_step

    def spy(self, epoch, batch_idx, optimizer, optimizer_closure=None):  # type: ignore[no-untyped-def]
        original(self, epoch, batch_idx, optimizer, optimizer_closure)
        grads = [p.grad for p in self.model.parameters() if p.grad is not None]
        norms.append(float(nn.utils.get_total_norm(grads)))

    monkeypatch.setattr(ClassificationTask, "optimizer_step", spy)
    train(tiny("trainer.precision=bf16-mixed", f"trainer.gradient_clip={clip}"), progress=False)
    assert len(norms) == 9
    assert (max(norms) <= 0.0101) == (clip != "0.0")


def test_the_epochs_loss_is_the_mean_of_what_was_trained_on(
    tiny: Callable[..., RunConfig],
) -> None:
    """With mixing and smoothing the loss is not the cross-entropy of the plain labels."""
    more = ("task.mixup=0.8", "task.label_smoothing=0.1", "trainer.max_epochs=2")
    folder = train(tiny(*more), progress=False).folder
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    steps = [float(row["train/loss"]) for row in rows if row["train/loss"]]
    epochs = [float(row["train/loss_epoch"]) for row in rows if row["train/loss_epoch"]]
    assert len(steps) == 6
    assert epochs == pytest.approx([sum(steps[:3]) / 3, sum(steps[3:]) / 3], rel=1e-6)
    assert all(row["train/acc_mixed"] for row in rows if row["train/loss_epoch"])


def test_images_grow_over_the_stages_of_the_training(
    tiny: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """9 steps at 1/10 to 9/10 of the training."""
    from vitkit.models.vit import VisionTransformer

    sides: list[int] = []
    forward = VisionTransformer.forward

    def spy(self, images):  # type: ignore[no-untyped-def]
        if self.training:
            sides.append(images.shape[-1])
        return forward(self, images)

    monkeypatch.setattr(VisionTransformer, "forward", spy)
    more = ("model.patch_size=2", "model.dynamic_img_size=true")
    train(tiny(*more, "task.progressive_sizes=[[0.25, 4], [0.6, 6]]"), progress=False)
    assert sides == [4, 4, 6, 6, 6, 8, 8, 8, 8]


@pytest.mark.parametrize("bad", ["[16]", "[[0.5, 16], [0.2, 24]]", "[[0, 8]]", "[[0.5, 0]]", "16"])
def test_stages_that_make_no_sense_are_one_line(bad: str) -> None:
    with pytest.raises(
        ConfigError, match=r"task\.progressive_sizes: .*a list of \[share, pixels\]"
    ):
        load_config([], [f"task.progressive_sizes={bad}"])


@pytest.mark.parametrize("soft", [False, True])
def test_class_weights_scale_the_loss_of_an_image(soft: bool) -> None:
    logits, targets = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 0])
    weights = torch.tensor([0.5, 2.0, 4.0])
    shares = F.one_hot(targets, 3) * (0.8 if soft else 1.0)
    if soft:
        shares = shares + 0.2 * F.one_hot(targets.roll(1), 3)
    smooth = shares.double() * 0.9 + 0.1 / 3
    each = -(smooth * logits.double().log_softmax(1)).sum(1)
    want = (each * (shares.double() * weights.double()).sum(1)).mean()
    loss = classification_loss(
        logits, shares if soft else targets, label_smoothing=0.1, class_weights=weights
    )
    torch.testing.assert_close(loss.double(), want, rtol=1e-5, atol=0)


def test_weighted_images_of_a_common_class_keep_it() -> None:
    """The best answer to an image is its smoothed target, however rare the other class is."""
    targets = torch.tensor([0] * 50 + [1])
    weights = balanced_class_weights((50, 1))
    best = (F.one_hot(targets, 2) * 0.9 + 0.1 / 2).log().requires_grad_()
    loss = classification_loss(best, targets, label_smoothing=0.1, class_weights=weights)
    (gradient,) = torch.autograd.grad(loss, best)
    assert gradient.abs().max() < 1e-7  # at any other answer to a common image 1e-3 and more
    assert (best[:50].argmax(1) == 0).all()


def test_balanced_classes_change_a_training_and_are_told(
    tiny: Callable[..., RunConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = torch.randint(0, 256, (72, 3, 8, 8), dtype=torch.uint8)
    pairs = [(image, int(index >= 60)) for index, image in enumerate(pixels)]
    weights = []
    for kind in ("none", "balanced"):
        config = tiny(f"task.class_weights={kind}", "trainer.max_epochs=1", folder=kind)
        data = data_from_datasets(pairs, class_names=["a", "b"], config=config.data)  # type: ignore[arg-type]
        result = train(config, data=data, progress=True)
        weights.append(read_checkpoint(result.checkpoint).trained["head.weight"])
        said = capsys.readouterr().out
        # 48 and 10 of them are trained on
        assert ("classes weighed 0.6 to 2.9" in said) == (kind == "balanced")
    assert not torch.equal(*weights)


def test_classes_are_weighed_by_name(
    tiny: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor | None] = []
    learn = ClassificationTask._learn

    def looked(self: ClassificationTask, inputs: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(self.class_weights)
        return learn(self, inputs, goal)

    monkeypatch.setattr(ClassificationTask, "_learn", looked)
    pairs = [(torch.full((3, 8, 8), i, dtype=torch.uint8), i % 3) for i in range(72)]
    config = tiny("task.class_weights={b: 4, c: 0.5}", "trainer.max_epochs=1")
    data = data_from_datasets(pairs, class_names=["a", "b", "c"], config=config.data)  # type: ignore[arg-type]
    result = train(config, data=data, progress=False)
    assert seen[0] is not None and seen[0].tolist() == [1.0, 4.0, 0.5]
    counted = result.record.tables["training_classes"]
    assert counted == {"class": ["a", "b", "c"], "images": list(data.info.class_counts)}
    assert sum(counted["images"]) == data.info.num_train
    wrong = tiny("task.class_weights={bb: 4}", folder="wrong")
    with pytest.raises(
        UnknownNameError, match=r"class 'bb'; did you mean b\? \(task.class_weights\)"
    ):
        train(wrong, data=data, progress=False)
    for bad in ("{b: -1}", "balance", "{b: much}", "3"):
        with pytest.raises(ConfigError, match=r"none, balanced, or weights above 0 by class") as no:
            tiny(f"task.class_weights={bad}")
        assert str(no.value).count("class_weights") == 1


@pytest.mark.parametrize("model", ["vit_mini_patch4_32", "deit_tiny_distilled_patch16_224"])
def test_stages_need_a_model_of_any_size(model: str) -> None:
    stages = [f"model.name={model}", "task.progressive_sizes=[[0.5, 16]]"]
    with pytest.raises(ConfigError, match=r"task\.progressive_sizes: .*dynamic_img_size=true"):
        load_config([], stages)
    load_config([], [*stages, "model.dynamic_img_size=true"])
    load_config([], ["model.name=vit_stem_nano_32", stages[1]])  # takes any size as it is


@pytest.mark.parametrize(
    ("model", "side"), [("cct_2_3x2_32", 16), ("vit_mini_patch4_32", 18), ("vit_stem_nano_32", 2)]
)
def test_stages_that_the_model_cannot_read_end_before_the_training(
    tmp_path: Path, model: str, side: int
) -> None:
    words = [f"data.{name}" for name in ("name=synthetic", "synthetic_size=40", "img_size=32")]
    words += [f"model.name={model}", f"task.progressive_sizes=[[0.3, {side}]]"]
    words += ["model.dynamic_img_size=true"] * ("patch" in model) + [f"run.dir={tmp_path / 'run'}"]
    with pytest.raises(ConfigError, match=rf"{model} cannot read images of {side} x {side}"):
        train(load_config([], words), progress=False)
    larger = [*words, "task.progressive_sizes=[[0.3, 64]]"]
    with pytest.raises(ConfigError, match=r"given 64, but the images are 32 x 32"):
        train(load_config([], larger), progress=False)
    assert not (tmp_path / "run").exists()
