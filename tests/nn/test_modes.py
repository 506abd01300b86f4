"""Evaluation for a while, and blocks that do not end in the order in which they began."""

from __future__ import annotations

from torch import nn

from vitkit.nn import evaluating


def model() -> nn.Sequential:
    """In training, but for one part that somebody froze."""
    built = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.Sequential(nn.Dropout()))
    built[0].eval()
    return built


def modes(built: nn.Module) -> list[bool]:
    return [part.training for part in built.modules()]


def test_behind_the_block_every_part_is_as_it_was() -> None:
    built = model()
    before = modes(built)
    with evaluating(built):
        assert not any(modes(built))
        with evaluating(built):
            pass
        assert not any(modes(built))
    assert modes(built) == before == [True, False, True, True, True]


def test_of_blocks_that_overlap_each_lasts_to_its_own_end() -> None:
    built = model()
    before = modes(built)
    first, second, third = (evaluating(built) for _ in range(3))
    first.__enter__()
    second.__enter__()
    third.__enter__()
    first.__exit__(None, None, None)
    assert not any(modes(built))
    third.__exit__(None, None, None)
    assert not any(modes(built))
    second.__exit__(None, None, None)
    assert modes(built) == before


def test_a_block_over_a_part_holds_that_part_alone() -> None:
    built = model()
    whole, part = evaluating(built), evaluating(built[2])
    whole.__enter__()
    part.__enter__()
    whole.__exit__(None, None, None)
    assert modes(built) == [True, False, True, False, False]
    part.__exit__(None, None, None)
    assert modes(built) == [True, False, True, True, True]


def test_training_that_begins_meanwhile_is_given_back_by_later_blocks() -> None:
    """As where a text is written only half, and the model trained on."""
    built = model()
    half = evaluating(built)
    half.__enter__()
    built.train()
    with evaluating(built):
        assert not any(modes(built))
    assert all(modes(built))
    half.__exit__(None, None, None)
    assert all(modes(built))
