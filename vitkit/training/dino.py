"""Self-distillation without labels: a student learns to agree with a teacher on other views.

The teacher is an average of the student over time, sees the two large views only, and is what is
left of the training. Centring and sharpening of its outputs keep both from agreeing on nothing.
Source: Caron et al., "Emerging properties in self-supervised vision Transformers", arXiv
2104.14294.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitkit.nn import Linear, linear, pooled_features
from vitkit.training.base import CHECKPOINT_KEY
from vitkit.training.pretraining import PretrainingTask
from vitkit.training.task_config import DinoConfig

__all__ = [
    "DinoTask",
    "MomentumTeacher",
    "ProjectionHead",
    "SelfDistilled",
    "dino_loss",
    "teacher_momentum",
    "teacher_temperature",
]

BACKBONE, PROJECTION = "backbone.", "projection."

Views = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor | None]]


class ProjectionHead(nn.Module):
    """Three layers, then likeness to ``out_dim`` learned directions.

    The last layer's rows have length one, as the vectors that they are multiplied with: weight
    normalisation whose gain stays 1.

    Args:
        in_dim: C, width of the features.
        hidden_dim, bottleneck_dim: of the layers.
        out_dim: K.
    """

    def __init__(self, in_dim: int, *, hidden_dim: int, bottleneck_dim: int, out_dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            Linear(in_dim, hidden_dim),
            nn.GELU(),
            Linear(hidden_dim, hidden_dim),
            nn.GELU(),
            Linear(hidden_dim, bottleneck_dim),
        )
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.last_layer = Linear(bottleneck_dim, out_dim, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C) -> (B, K), each from -1 to 1."""
        x = F.normalize(self.mlp(features), dim=-1)
        return linear(x, F.normalize(self.last_layer.weight, dim=-1).to(x.dtype))


class SelfDistilled(nn.Module):
    """An encoder and its projection head: what student and teacher both are.

    Args:
        backbone: with timm's ``forward_features`` and ``forward_head(..., pre_logits=True)``.
        projection: from its features to the outputs.
    """

    def __init__(self, backbone: nn.Module, projection: ProjectionHead) -> None:
        super().__init__()
        self.backbone, self.projection = backbone, projection

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, channels, height, width) -> (B, K)."""
        outputs: Tensor = self.projection(pooled_features(self.backbone, images))
        return outputs

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.projection.last_layer

    def no_weight_decay(self) -> set[str]:
        """What the encoder names."""
        named: Any = getattr(self.backbone, "no_weight_decay", set)
        return {BACKBONE + name for name in named()}


class MomentumTeacher:
    """A copy of the student that follows it slowly. No module: nobody trains or registers it.

    Args:
        student: to copy, weights and all.

    Attributes:
        network: in evaluation mode, without gradients.
    """

    def __init__(self, student: SelfDistilled) -> None:
        self.network = copy.deepcopy(student).requires_grad_(False).eval()
        self._pairs: list[tuple[Tensor, Tensor]] | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """Images (B, channels, height, width) -> (B, K)."""
        with torch.no_grad():
            outputs: Tensor = self.network(images)
        return outputs

    def forget(self) -> None:
        """Look the student's tensors up anew, at the next step."""
        self._pairs = None

    @torch.no_grad()
    def follow(self, student: SelfDistilled, momentum: float) -> None:
        """momentum x its own + (1 - momentum) x the student's weights and float buffers."""
        if self._pairs is None:  # looked up once, for a walk through the modules takes time
            live = student.state_dict()
            self._pairs = [(mine, live[name]) for name, mine in self.network.state_dict().items()]
        floats = [pair for pair in self._pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_(
            [mine for mine, _ in floats], [its for _, its in floats], 1.0 - momentum
        )
        for mine, its in self._pairs:
            if not mine.is_floating_point():
                mine.copy_(its)


class DinoTask(PretrainingTask):
    """Trains a student against its average.

    Args:
        model: the student.
        task: settings.
        views: (uint8 images, positions, epoch) -> the two large views (2 B, channels, height,
            width), all first ones before all second ones, and the small ones (n B, ...) or None.
        shared: arguments of :class:`PretrainingTask`.

    Attributes:
        teacher: what is kept in the end.
        center: (1, K), the running mean of the teacher's outputs.
    """

    measures: ClassVar[tuple[str, ...]] = ("loss", "teacher_entropy")

    center: Tensor

    def __init__(
        self, model: SelfDistilled, *, task: DinoConfig, views: Views, **shared: Any
    ) -> None:
        teacher = MomentumTeacher(model)
        super().__init__(model, encoder=teacher.network.backbone, **shared)
        self.task, self.views, self.teacher = task, views, teacher
        self.register_buffer("center", torch.zeros(1, task.out_dim))
        self._means: list[Tensor] = []  # of the teacher's outputs, a micro-batch of the step each

    def on_fit_start(self) -> None:
        """The teacher goes where the student is, whose tensors may be others there."""
        self.teacher.network.to(self.device)
        self.teacher.forget()

    def measure(
        self, images: Tensor, positions: Tensor, epoch: int, *, training: bool
    ) -> dict[str, Tensor]:
        """The mean loss of a batch, and the mean entropy of what the teacher says, in nats.

        The entropy falls to 0 where one output wins for sure, and rises to log K where all are
        alike: for all images, either is a collapse.
        """
        large, small = self.views(images, positions, epoch)
        teacher_logits = self.teacher(large).float()
        student_output: Tensor = self.model(large)
        if small is not None:
            student_output = torch.cat([student_output, self.model(small)])
        teacher_output = ((teacher_logits - self.center) / self._temperature()).softmax(dim=-1)
        loss = dino_loss(student_output, teacher_output, len(images), self.task.student_temp)
        if training:
            self._means.append(teacher_logits.mean(dim=0, keepdim=True))
        entropy = torch.special.entr(teacher_output).sum(dim=-1).mean()
        return {"loss": loss, "teacher_entropy": entropy}

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """The step, and the teacher's; here and not later, so that checkpoints have it."""
        super().optimizer_step(*args, **kwargs)
        self._recenter()
        done = self.plan.progress(self.global_step)
        self.teacher.follow(self._student, teacher_momentum(done, self.task.momentum_teacher))

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """The last layer stays as it is in the first epochs."""
        if self.current_epoch < self.task.freeze_last_layer:
            for parameter in self._student.get_classifier().parameters():
                parameter.grad = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the teacher: its encoder is what is evaluated, as averaged weights are."""
        super().on_save_checkpoint(checkpoint)
        own, state = checkpoint[CHECKPOINT_KEY], self.teacher.network.state_dict()
        own["averaged"] = _under(BACKBONE, state)
        own["teacher_projection"] = _under(PROJECTION, state)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the teacher where the checkpoint left it."""
        super().on_load_checkpoint(checkpoint)
        own = checkpoint[CHECKPOINT_KEY]
        self.teacher.network.backbone.load_state_dict(own["averaged"])
        self.teacher.network.projection.load_state_dict(own["teacher_projection"])

    @property
    def _student(self) -> SelfDistilled:
        assert isinstance(self.model, SelfDistilled)
        return self.model

    def _temperature(self) -> float:
        return teacher_temperature(
            self.plan.progress(self.global_step),
            start=self.task.warmup_teacher_temp,
            end=self.task.teacher_temp,
            warmup=self.task.teacher_temp_warmup,
        )

    def _recenter(self) -> None:
        """Towards the mean of a step's batch, over all its parts and processes."""
        mean = torch.cat(self._means).mean(dim=0, keepdim=True)
        self._means.clear()
        if self.trainer.world_size > 1:
            mean = self.trainer.strategy.reduce(mean, reduce_op="mean")
        self.center.lerp_(mean, 1.0 - self.task.center_momentum)


def dino_loss(
    student_output: Tensor, teacher_output: Tensor, batch: int, student_temp: float
) -> Tensor:
    """Cross-entropy of the student's views with the teacher's, over all pairs of different views.

    Args:
        student_output: before the softmax, (V B, K), view by view, the teacher's views first.
        teacher_output: probabilities (T B, K).
        batch: B.
        student_temp: what the outputs are divided by.

    Returns:
        float32 scalar, the mean over images and pairs.
    """
    logs = (student_output.float() / student_temp).log_softmax(dim=-1).unflatten(0, (-1, batch))
    shares = teacher_output.unflatten(0, (-1, batch))
    # No product of matrices, which autocast would compute in bfloat16.
    pairs = -torch.stack([(one * logs).sum(dim=(1, 2)) for one in shares]) / batch
    same = pairs.diagonal().sum()
    return (pairs.sum() - same) / (pairs.numel() - min(pairs.shape))


def teacher_temperature(progress: float, *, start: float, end: float, warmup: float) -> float:
    """From ``start`` in a line to ``end``, which it reaches at the share ``warmup``."""
    return end if progress >= warmup else start + (end - start) * progress / warmup


def teacher_momentum(progress: float, start: float) -> float:
    """From ``start`` to 1 along half a cosine."""
    return 1.0 - (1.0 - start) * (1.0 + math.cos(math.pi * progress)) / 2.0


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of the tensors below a name, without it."""
    return {
        name.removeprefix(prefix): tensor.detach().clone()
        for name, tensor in state.items()
        if name.startswith(prefix)
    }
