"""Models by name, out of other libraries and from the Hugging Face hub; the only way to the net.

Whatever goes wrong there becomes one line that says what to try.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from torch import Tensor, nn
from torchvision import models as tv

from vitkit import models as face
from vitkit.errors import WeightsError, first_line, nearest
from vitkit.models.presets import TIMM_PREFIX
from vitkit.weights.files import read_json

__all__ = [
    "HUB_PREFIX",
    "TIMM_PREFIX",
    "TORCHVISION_PREFIX",
    "hub_file",
    "hub_folder",
    "timm_model",
    "torchvision_model",
]

HUB_PREFIX, TORCHVISION_PREFIX = "hf-hub:", "torchvision/"
DESCRIPTIONS = ("config.json", "preprocessor_config.json")


def hub_folder(name: str, weight_files: Sequence[str]) -> Path:
    """The folder in the hub's cache with a repository's weights and what describes them.

    Args:
        name: ``owner/model``, a revision behind ``@`` allowed.
        weight_files: names to look for, the first one there is taken.

    Raises:
        WeightsError: no such repository, none of the files in it, or the hub is out of reach.
    """
    repository, _, revision = name.partition("@")
    for description in DESCRIPTIONS:
        path = _fetched(repository, description, revision)
        if path is not None and "pretrained_cfg" in read_json(path):
            break  # timm's, which says the preprocessing too
    for file in weight_files:
        path = _fetched(repository, file, revision)
        if path is None:
            continue
        if file.endswith(".index.json"):
            for shard in sorted(set(map(str, read_json(path).get("weight_map", {}).values()))):
                _fetched(repository, shard, revision)
        return path.parent
    raise WeightsError(
        f"{HUB_PREFIX}{name} holds none of {', '.join(weight_files)}; download its file of "
        "weights and give the path"
    )


def hub_file(name: str, file: str) -> Path | None:
    """A file of a repository in the hub's cache; None if it has none of that name.

    Args:
        name: ``owner/model``, a revision behind ``@`` allowed.
        file: its name.

    Raises:
        WeightsError: no such repository, or the hub is out of reach.
    """
    repository, _, revision = name.partition("@")
    return _fetched(repository, file, revision)


def timm_model(name: str) -> nn.Module:
    """A model of timm with its published weights.

    Args:
        name: ``timm/<model>``, a tag behind a dot allowed.

    Raises:
        UnknownNameError: timm has no such model.
        WeightsError: there are no weights for it, or they cannot be fetched.
    """
    built: nn.Module = face.build_timm(name.removeprefix(TIMM_PREFIX), pretrained=True)
    return built


def torchvision_model(
    name: str,
) -> tuple[dict[str, Tensor], dict[str, Any], tuple[str, ...]]:
    """Tensors, preprocessing and class names of a model of torchvision.

    Args:
        name: ``torchvision/<model>``, a set of weights behind a dot allowed, as in
            ``torchvision/vit_b_16.IMAGENET1K_SWAG_E2E_V1``.

    Raises:
        WeightsError: no such model or weights, or they cannot be fetched.
    """
    model, _, tag = name.removeprefix(TORCHVISION_PREFIX).partition(".")
    if model not in tv.list_models():
        close = nearest(model, tv.list_models())
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise WeightsError(f"torchvision has no model {model!r}{hint}")
    known = tv.get_model_weights(model)
    tags = [each.name for each in known]
    if tag and tag not in tags:
        raise WeightsError(f"torchvision's {model} has no weights {tag!r}, but {', '.join(tags)}")
    weights = known[tag or "DEFAULT"]
    try:
        state = tv.get_model(model, weights=weights).state_dict()
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"{name}: the weights cannot be fetched ({_reason(error)}); check the network, or "
            f"download {weights.url} and give the path"
        ) from error
    return state, _preset(weights.transforms()), tuple(weights.meta.get("categories") or ())


def _preset(preset: Any) -> dict[str, Any]:
    """torchvision's evaluation preset in our words."""
    crop = int(preset.crop_size[0])
    return {
        "img_size": [crop, crop],
        "mean": list(preset.mean),
        "std": list(preset.std),
        "interpolation": str(preset.interpolation.value),
        "crop_pct": crop / int(preset.resize_size[0]),
    }


def _fetched(repository: str, file: str, revision: str) -> Path | None:
    """A file of a repository, in the hub's cache; None if the repository has no such file.

    Raises:
        WeightsError: the repository is not there, or out of reach.
    """
    where = f"{HUB_PREFIX}{repository}"
    try:
        with _silent():
            return Path(hf_hub_download(repository, file, revision=revision or None))
    except GatedRepoError as error:
        raise WeightsError(
            f"{where} wants its licence accepted: do so on its page, then `hf auth login`"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise WeightsError(
            f"{where}: the hub has no such model, or it is private; a name is owner/model"
        ) from error
    except RevisionNotFoundError as error:
        raise WeightsError(f"{where}: it has no revision {revision!r}") from error
    except LocalEntryNotFoundError as error:
        if try_to_load_from_cache(repository, file, revision=revision or None) is _CACHED_NO_EXIST:
            return None  # the hub said so when it was within reach
        raise _out_of_reach(where, file, error) from error
    except EntryNotFoundError:
        return None
    except Exception as error:  # of whichever HTTP library the hub's client uses
        raise _out_of_reach(where, file, error) from error


@contextmanager
def _silent() -> Iterator[None]:
    """The hub's client warns of each attempt; what came of them is told once."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _out_of_reach(where: str, file: str, error: Exception) -> WeightsError:
    return WeightsError(
        f"{where}: the hub cannot be reached and {file} is not in its cache "
        f"({_reason(error.__cause__ or error)}); check the network, or give a downloaded folder"
    )


def _reason(error: BaseException) -> str:
    """A line of what a library says, which may be a long one."""
    return first_line(error)[:120]
