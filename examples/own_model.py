"""Register a module of your own, then train it by its name.

    python -m examples.own_model
    python -m examples.own_model trainer.max_epochs=20 model.kwargs.width=128

Trains on scikit-learn's handwritten digits. Prints the progress, then the name, the test accuracy
and the folder that holds the results.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from torch import nn

import vitkit


@vitkit.register_model("two_layers")
def two_layers(
    num_classes: int, in_chans: int, img_size: tuple[int, int], *, width: int = 64
) -> nn.Module:
    """A perceptron with one hidden layer: images (B, channels, height, width) -> logits."""
    pixels = in_chans * img_size[0] * img_size[1]
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(pixels, width),
        nn.GELU(),
        nn.Linear(width, num_classes),
    )


def main(arguments: Sequence[str] = ()) -> vitkit.TrainResult:
    """The name stands in the settings like that of any model; later settings win."""
    settings = [
        "model.name=two_layers",
        "model.kwargs.width=96",  # further arguments of the function
        "data.name=digits",
        "optimizer.lr=3e-3",
        "trainer.max_epochs=10",
    ]
    result = vitkit.train(overrides=[*settings, *arguments])
    print(f"two_layers: test accuracy {result.metrics['test/acc']:.1%}, in {result.folder}")
    return result


if __name__ == "__main__":
    main(sys.argv[1:])
