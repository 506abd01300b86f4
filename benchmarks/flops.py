"""Operations of a forward pass in closed form; derived in :mod:`vitkit.models.flops`."""

from vitkit.models.flops import block_flops, forward_flops, training_flops

__all__ = ["block_flops", "forward_flops", "training_flops"]
