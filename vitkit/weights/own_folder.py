"""Our own folder: ``model.safetensors`` and a ``config.json`` that rebuilds any model of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from vitkit.weights.stated import OWN_TYPE

__all__ = ["own_folder"]


def own_folder(
    model: nn.Module,
    section: Mapping[str, Any],
    preprocessing: Mapping[str, Any],
    class_names: Sequence[str],
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and ``config.json``, which ``vitkit.load_model(FOLDER)`` reads.

    Args:
        model: to export.
        section: that rebuilds it.
        preprocessing: plain values of ``Preprocessing``.
        class_names: by index.
    """
    return dict(model.state_dict()), {
        "model_type": OWN_TYPE,
        "model": dict(section),
        "preprocessing": dict(preprocessing),
        "class_names": list(class_names),
    }
