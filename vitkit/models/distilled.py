"""A ViT with a second token whose head follows a teacher.

Source: Touvron et al., "Training data-efficient image Transformers & distillation through
attention", arXiv 2012.12877. Parameter names are timm's, so its weights load without a map.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vitkit.models.first_weights import init_vit_weights, make_head
from vitkit.models.vit import VisionTransformer

__all__ = ["DistilledVisionTransformer"]


class DistilledVisionTransformer(VisionTransformer):
    """A ViT whose class token learns the labels and whose distillation token learns a teacher.

    In evaluation the logits are the mean of both heads'. Takes the arguments of
    :class:`vitkit.models.vit.VisionTransformer`.

    Attributes:
        distilled_training: in training, give the pair of both heads' logits; a task that has a
            teacher sets it.

    Raises:
        ValueError: another pooling than ``token``.
    """

    num_head_tokens = 2

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.global_pool != "token":
            raise ValueError("a distilled ViT reads its two tokens: global_pool must be 'token'")
        self.distilled_training = False
        self.dist_token = nn.Parameter(torch.zeros(1, 1, self.embed_dim))
        nn.init.trunc_normal_(self.dist_token, std=0.02)
        self.head_dist = make_head(self.num_features, self.num_classes)
        init_vit_weights(self.head_dist)

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Any:
        """Tokens (B, N, C) -> logits (B, num_classes), or what the classifiers would read.

        In training with ``distilled_training``: (logits of the class token's head, of the other).
        """
        x, x_dist = self.head_drop(self.fc_norm(tokens[:, :2])).unbind(dim=1)
        if pre_logits:
            return (x + x_dist) / 2
        x, x_dist = self.head(x), self.head_dist(x_dist)
        if self.training and self.distilled_training:
            return x, x_dist
        return (x + x_dist) / 2

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Fresh heads for another number of classes.

        Raises:
            ValueError: another pooling.
        """
        if global_pool not in (None, "token"):
            raise ValueError("a distilled ViT reads its two tokens: global_pool must be 'token'")
        super().reset_classifier(num_classes)
        like = self.patch_embed.proj.weight
        self.head_dist = make_head(self.num_features, num_classes).to(like.device, like.dtype)
        init_vit_weights(self.head_dist)

    def get_classifier(self) -> Any:
        """The last layers, from C to num_classes: of the class token, of the distillation token."""
        return self.head, self.head_dist

    def set_distilled_training(self, enable: bool = True) -> None:
        """Give both heads' logits in training, for a task with a teacher."""
        self.distilled_training = enable

    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay leaves alone, besides biases and norms."""
        return super().no_weight_decay() | {"dist_token"}

    def _prefix(self) -> list[Tensor]:
        class_token, *registers = super()._prefix()
        return [class_token, self.dist_token, *registers]
