"""Record a ViT's attention, and see how far each head looks.

    python -m examples.attention_maps                       # a fresh ViT
    python -m examples.attention_maps runs/<name>/<time>    # one that vitkit trained

Prints the shape of the maps, that their rows sum to one and that recording changed no output, then
the mean attention distance of each head of each layer in pixels (arXiv 2010.11929, figure 7).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import Tensor

import vitkit
from vitkit.explain import attention_distance


def main(arguments: Sequence[str] = ()) -> Tensor:
    """Returns the distances it prints: (layers, heads)."""
    torch.manual_seed(0)
    if arguments:
        model = vitkit.load(arguments[0], device="cpu").model
    else:
        model = vitkit.create_model("vit_tiny_patch16_224", num_classes=10).eval()
    embed = model.patch_embed
    images = torch.randn(2, embed.proj.in_channels, *embed.img_size)  # noise; take your own
    with torch.inference_mode():
        before = model(images)
        with vitkit.record_attention(model) as maps:
            after = model(images)
    worst = max(float((layer.sum(dim=-1) - 1).abs().max()) for layer in maps.values())
    print(f"{len(maps)} layers, each (images, heads, tokens, tokens) = {tuple(maps[0].shape)}")
    print(
        f"rows sum to one within {worst:.0e}, outputs moved by {(after - before).abs().max():.0e}"
    )
    distances = [
        attention_distance(maps[i], embed.grid_size, embed.patch_size).mean(dim=0)
        for i in sorted(maps)
    ]
    print("\nmean attention distance in pixels\nlayer  head 0, 1, ...")
    for index, layer in enumerate(distances):
        print(f"{index:5}  " + " ".join(f"{pixels:6.1f}" for pixels in layer.tolist()))
    return torch.stack(distances)


if __name__ == "__main__":
    main(sys.argv[1:])
