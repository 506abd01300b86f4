"""Train on a torch Dataset of your own.

    python -m examples.own_data
    python -m examples.own_data trainer.max_epochs=5 model.depth=2

Prints the progress of the training, then the test accuracy and the folder that holds the results.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

import vitkit


class Stripes(Dataset[tuple[Tensor, int]]):
    """Noisy stripes that lie (class 0) or stand (class 1); each picture is a function of its index.

    A picture may be a PIL image, a uint8 array (height, width[, channels]) or, as here, a uint8
    tensor (channels, height, width).
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_000 + index)
        noise = torch.randint(0, 156, (1, 16, 16), generator=generator)
        wave = 100 * (torch.arange(16) % 2)
        standing = index % 2
        stripes = wave[None, :] if standing else wave[:, None]
        return (noise + stripes).to(torch.uint8), standing


def main(arguments: Sequence[str] = ()) -> vitkit.TrainResult:
    """Three lines: the data, the training, the result."""
    data = vitkit.data_from_datasets(
        Stripes(400, seed=0), test=Stripes(100, seed=1), class_names=["lying", "standing"]
    )
    settings = ["model.name=vit_digits", "trainer.max_epochs=3", "data.batch_size=32"]
    result = vitkit.train(overrides=[*settings, *arguments], data=data)
    print(f"test accuracy {result.metrics['test/acc']:.1%}, results in {result.folder}")
    return result


if __name__ == "__main__":
    main(sys.argv[1:])
