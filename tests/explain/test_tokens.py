"""Token norms and likeness to the class token against features taken another way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity

from tests.explain.subjects import DEPTH, GRID, MODELS, PREFIX, WIDTH, build, count_hooks, pictures
from vitkit.errors import ConfigError, EvaluationError
from vitkit.explain import block_tokens, class_token_similarity, token_norms
from vitkit.models import create_model

READ_PATCHES = {"average", "average_of_normed", "max", "map", "stem", "cct", "cvt"}
READ_PATCHES |= {"hybrid_of_attention", "timm_average"}


@pytest.mark.parametrize("name", MODELS)
def test_every_family(name: str) -> None:
    model, images = build(name), pictures()
    hooks = count_hooks(model)
    tokens = block_tokens(model, images)
    count = GRID[0] * GRID[1] + PREFIX.get(name, 0)
    assert tokens.shape == (2, DEPTH, count, WIDTH)
    assert count_hooks(model) == hooks
    with torch.no_grad():
        features = model.forward_features(images)
        torch.testing.assert_close(model.norm(tokens[:, -1]), features, rtol=1e-4, atol=1e-5)
    norms = token_norms(model, images)
    torch.testing.assert_close(norms, tokens.square().sum(-1).sqrt(), rtol=1e-5, atol=1e-6)

    alike = class_token_similarity(model, images)
    assert alike.shape == (2, DEPTH, *GRID)
    patches = tokens[:, :, PREFIX.get(name, 0) :]
    for image in range(2):
        for block in range(DEPTH):
            mine = patches[image, block].numpy()
            read = mine.mean(0) if name in READ_PATCHES else tokens[image, block, 0].numpy()
            expected = cosine_similarity(read[None], mine)[0]
            np.testing.assert_allclose(
                alike[image, block].flatten().numpy(), expected, rtol=1e-4, atol=1e-5
            )


def test_blocks_by_number_are_timms_intermediates() -> None:
    model, images = build("timm_registers"), pictures()
    with torch.no_grad():
        (patches, prefix), *_ = model.get_intermediate_layers(
            images, n=[1], return_prefix_tokens=True
        )
    tokens = block_tokens(model, images, [1, -1])
    expected = torch.cat([prefix, patches], dim=1)
    torch.testing.assert_close(tokens[:, 0], expected, rtol=1e-5, atol=1e-6)
    assert tokens.shape[1] == 2
    with pytest.raises(ConfigError, match="block 3 does not exist; allowed: 0 to 2, or -3 to -1"):
        block_tokens(model, images, [3])


def test_blocks_without_attention_have_tokens_too() -> None:
    model = create_model("nb02_mixer", img_size=16, patch_size=4, embed_dim=16).eval()
    images = torch.randn(1, 3, 16, 16)
    assert token_norms(model, images).shape == (1, 4, 16)
    assert class_token_similarity(model, images).shape == (1, 4, 4, 4)
    with pytest.raises(EvaluationError, match="not built of patches and blocks"):
        token_norms(create_model("resnet20_32", depth=8, embed_dim=16), images)


def test_a_token_that_is_far_longer_than_the_rest_is_seen() -> None:
    model, images = build("token"), pictures(1)

    def stretch(module: object, inputs: object, output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        output[:, 7] *= 50
        return output

    model.blocks[1].register_forward_hook(stretch)
    norms = token_norms(model, images)[0]
    assert norms[1].argmax() == 7 and norms[1, 7] > 10 * norms[1].median()
    assert norms[0].argmax() != 7 or norms[0, 7] < 3 * norms[0].median()
