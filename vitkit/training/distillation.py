"""Distillation: a trained teacher's logits as a second goal.

Sources: Hinton et al., "Distilling the knowledge in a neural network", arXiv 1503.02531 (soft);
Touvron et al., arXiv 2012.12877, section 4 (hard, and the distillation token).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Teacher", "distillation_loss"]


class Teacher:
    """A frozen model that reads what a student reads, in its own units and at its own size.

    No module of the task's: its weights are neither trained nor saved with the student.

    Args:
        model: images (B, channels, height, width) -> logits (B, classes).
        mean, std: of each channel, of the images that it was trained on, in [0, 1].
        student_mean, student_std: what the student's inputs were normalised with.
        img_size: (height, width) in pixels that the teacher takes; None: any.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        student_mean: Sequence[float],
        student_std: Sequence[float],
        img_size: tuple[int, int] | None = None,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        own, theirs = (torch.tensor(v).view(1, -1, 1, 1) for v in (std, student_std))
        shift = torch.tensor(student_mean).view(1, -1, 1, 1) - torch.tensor(mean).view(1, -1, 1, 1)
        self.scale, self.shift = theirs / own, shift / own
        self.img_size = img_size

    @torch.no_grad()
    def __call__(self, inputs: Tensor) -> Tensor:
        """The student's inputs (B, channels, height, width) -> the teacher's logits (B, classes).

        Mixed and erased images are understood: normalisation is linear.
        """
        if self.scale.device != inputs.device:
            self.model.to(inputs.device)
            self.scale, self.shift = self.scale.to(inputs.device), self.shift.to(inputs.device)
        images = inputs * self.scale + self.shift
        if self.img_size is not None and images.shape[-2:] != self.img_size:
            images = F.interpolate(images, self.img_size, mode="bicubic", antialias=True)
        logits: Tensor = self.model(images.contiguous(memory_format=torch.channels_last))
        return logits


def distillation_loss(
    logits: Tensor, taught: Tensor, *, hard: bool = False, temperature: float = 1.0
) -> Tensor:
    """How far a student is from its teacher, in float32.

    Args:
        logits: the student's (B, classes).
        taught: the teacher's (B, classes).
        hard: cross-entropy with the teacher's decision; otherwise the Kullback-Leibler divergence
            from the teacher's distribution, times the squared temperature, which keeps the size of
            its gradient.
        temperature: both logits are divided by it, unless hard.
    """
    logits, taught = logits.float(), taught.float()
    if hard:
        return F.cross_entropy(logits, taught.argmax(dim=1))
    student = (logits / temperature).log_softmax(dim=1)
    goal = (taught / temperature).log_softmax(dim=1)
    divergence = F.kl_div(student, goal, reduction="batchmean", log_target=True)
    return divergence * temperature**2
