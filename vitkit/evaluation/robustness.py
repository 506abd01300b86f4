"""Errors under corruptions as one number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vitkit.evaluation.corruptions.catalogue import SEVERITIES, TEST_CORRUPTIONS
from vitkit.evaluation.standard import Measured

__all__ = [
    "ALEXNET_CLEAN_ERROR",
    "ALEXNET_ERRORS",
    "corruption_measures",
    "mean_corruption_error",
    "relative_corruption_error",
]

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

ALEXNET_CLEAN_ERROR = 0.4348
"""AlexNet's error on ImageNet's validation images as they are (the same)."""


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
    means = _means(errors)
    if baseline is not None:
        means = {name: mean / baseline[name] for name, mean in means.items()}
    return sum(means.values()) / len(means)


def relative_corruption_error(
    errors: Mapping[str, Sequence[float]],
    clean: float,
    baseline: Mapping[str, float],
    baseline_clean: float,
) -> float:
    """Mean over the 15 test corruptions of what each adds to the clean error, over what it adds to
    another model's: a model that is worse on clean images is not for that less robust.

    Args:
        errors: corruption -> top-1 error at each severity; the four extra ones are left out.
        clean: top-1 error on the images as they are.
        baseline, baseline_clean: corruption -> mean error of the other model, and its clean error,
            such as :data:`ALEXNET_ERRORS` and :data:`ALEXNET_CLEAN_ERROR`.

    Raises:
        ValueError: a test corruption is missing.

    Source: Hendrycks and Dietterich, arXiv 1903.12261, section 4.
    """
    means = _means(errors)
    added = [(mean - clean) / (baseline[name] - baseline_clean) for name, mean in means.items()]
    return sum(added) / len(added)


def _means(errors: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Mean error over severities under each of the test corruptions."""
    missing = [name for name in TEST_CORRUPTIONS if name not in errors]
    if missing:
        raise ValueError(f"no errors under {', '.join(missing)}")
    return {name: sum(errors[name]) / len(errors[name]) for name in TEST_CORRUPTIONS}


def corruption_measures(
    prefix: str,
    table: str,
    found: Mapping[tuple[str, int], float],
    *,
    clean: float | None = None,
) -> Measured:
    """Accuracy under each corruption, and the mean error over those that count.

    ``<prefix>/<corruption>/acc`` is the mean over severities, ``<prefix>/err`` the mean error;
    with ``clean`` also ``<prefix>/mce``, that over AlexNet's errors, and
    ``<prefix>/mce_relative``, see :func:`relative_corruption_error`.

    Args:
        prefix: of the metrics.
        table: name of the table of severities.
        found: (corruption, severity) -> accuracy.
        clean: accuracy on the images as they are; None: AlexNet's errors are none to compare with.

    Raises:
        ValueError: a test corruption is missing.
    """
    names = list(dict.fromkeys(name for name, _ in found))
    errors = {name: [1 - found[name, severity] for severity in SEVERITIES] for name in names}
    metrics = {
        f"{prefix}/{name}/acc": 1 - sum(values) / len(values) for name, values in errors.items()
    }
    metrics[f"{prefix}/err"] = mean_corruption_error(errors)
    if clean is not None:
        metrics[f"{prefix}/mce"] = mean_corruption_error(errors, ALEXNET_ERRORS)
        metrics[f"{prefix}/mce_relative"] = relative_corruption_error(
            errors, 1 - clean, ALEXNET_ERRORS, ALEXNET_CLEAN_ERROR
        )
    columns = {f"severity_{s}": [found[name, s] for name in names] for s in SEVERITIES}
    return Measured(metrics, {table: {"corruption": names, **columns}})
