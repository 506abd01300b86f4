"""Handwritten digits that ship with scikit-learn: the embedded default, no download."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedShuffleSplit

from vitkit.data.raw import RawData, Request
from vitkit.data.splits import ResidentSplit

__all__ = ["read"]

TEST_SEED, TEST_FRACTION = 0, 0.2


def read(request: Request) -> RawData:
    """1,797 grey images of 8 x 8 pixels in 10 classes; the test indices are fixed.

    Source: the test part of E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits",
    UCI Machine Learning Repository, 1998.
    """
    digits = load_digits()
    pixels = (digits.images * (255.0 / 16.0)).round().astype(np.uint8)
    whole = ResidentSplit(
        torch.from_numpy(pixels)[:, None], torch.from_numpy(digits.target.astype(np.int64))
    )
    splitter = StratifiedShuffleSplit(1, test_size=TEST_FRACTION, random_state=TEST_SEED)
    train, test = next(splitter.split(digits.images, digits.target))
    return RawData(
        "digits",
        [str(digit) for digit in range(10)],
        whole.subset(torch.from_numpy(np.sort(train))),
        test=whole.subset(torch.from_numpy(np.sort(test))),
    )
