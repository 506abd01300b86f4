"""The embedded default: what ``make train`` and ``python train.py`` do when nothing is said.

A small ViT on scikit-learn's handwritten digits, which need no download.
"""

from __future__ import annotations

from typing import Any

__all__ = ["EMBEDDED_DEFAULT"]

EMBEDDED_DEFAULT: dict[str, Any] = {
    "model": {"name": "vit_digits"},
    "data": {"name": "digits", "batch_size": 64},
    "task": {"mixup": 0.2},
    "optimizer": {"name": "adamw", "lr": 3e-3, "weight_decay": 0.05},
    "schedule": {"name": "cosine", "warmup": 0.06},
    "ema": {"enabled": True, "decay": 0.99},
    "trainer": {"max_epochs": 80, "gradient_clip": 1.0, "accelerator": "cpu"},
}
