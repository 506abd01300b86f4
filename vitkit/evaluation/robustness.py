"""Errors under corruptions as one number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vitkit.evaluation.corruptions.catalogue import TEST_CORRUPTIONS

__all__ = ["ALEXNET_ERRORS", "mean_corruption_error"]

ALEXNET_ERRORS = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
"""AlexNet's mean error over the five severities of ImageNet-C (Hendrycks and Dietterich)."""


def mean_corruption_error(
    errors: Mapping[str, Sequence[float]], baseline: Mapping[str, float] | None = None
) -> float:
    """Mean over the 15 test corruptions of the mean error over severities, 1 = 100 %.

    Args:
        errors: corruption -> top-1 error at each severity; the four extra ones are left out.
        baseline: corruption -> mean error of another model, by which each is divided first, such as
            :data:`ALEXNET_ERRORS`; None: plain errors, as usual for CIFAR.

    Raises:
        ValueError: a test corruption is missing.

    Source: Hendrycks and Dietterich, arXiv 1903.12261, section 4.
    """
    missing = [name for name in TEST_CORRUPTIONS if name not in errors]
    if missing:
        raise ValueError(f"no errors under {', '.join(missing)}")
    means = {name: sum(errors[name]) / len(errors[name]) for name in TEST_CORRUPTIONS}
    if baseline is not None:
        means = {name: mean / baseline[name] for name, mean in means.items()}
    return sum(means.values()) / len(means)
