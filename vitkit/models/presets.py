"""The named sizes, as plain data: what a name stands for, and what else people call it.

This module imports no torch, so that help texts and config files can be checked quickly. A preset
is a family (the key into :data:`vitkit.models.registry.MODELS`) and that family's arguments.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from vitkit.errors import UnknownNameError
from vitkit.models.picture_presets import picture_aliases, picture_presets
from vitkit.models.preset import Preset
from vitkit.models.word_presets import word_presets

__all__ = [
    "ALIASES",
    "CUSTOM",
    "DEFAULT_MODEL",
    "FAMILIES",
    "PRESETS",
    "READS",
    "TIMM_PREFIX",
    "Preset",
    "family_of",
    "known_names",
    "matching_names",
    "resolve_name",
]

DEFAULT_MODEL = "vit_mini_patch4_32"
TIMM_PREFIX = "timm/"

FAMILIES: dict[str, str] = {
    "vit": "Vision Transformer",
    "vit_distilled": "Vision Transformer with a distillation token (DeiT)",
    "compact": "CCT, CVT and ViT-Lite",
    "hybrid": "MLP-Mixer, ConvMixer, and any list of their blocks, attention's and recurrent ones",
    "resnet": "residual network of CIFAR, to distil from",
    "pixels": "text Transformer that reads an image as a sequence of pixels",
    "text": "text Transformer for classification",
    "lm": "causal language model",
    "lm_recurrent": "language model of RNN, LSTM or GRU layers",
    "seq2seq": "Transformer encoder and decoder, for translation",
    "seq2seq_recurrent": "recurrent encoder and decoder, with attention or without",
    "timm": "any model of timm, named timm/<model>",
    "custom": "a person's own module, from register_model",
}

READS: dict[str, str] = {
    "text": "labelled texts",
    "lm": "text",
    "lm_recurrent": "text",
    "seq2seq": "sentence pairs",
    "seq2seq_recurrent": "sentence pairs",
}
"""Family -> the kind of data that it reads, as data sections name theirs; the others: images."""

PRESETS: dict[str, Preset] = {**dict(picture_presets()), **dict(word_presets())}
"""Every named size that vitkit builds itself."""

ALIASES: dict[str, str] = dict(picture_aliases())
"""What else people call them, in lower case; ``-`` may stand for ``_``."""

CUSTOM: dict[str, str] = {}
"""Names given by ``register_model`` and their one-line docs; the registry fills it."""


def resolve_name(name: str) -> str:
    """The name under which vitkit knows a model, from any of its spellings.

    Raises:
        UnknownNameError: no such name; the message offers the nearest ones.
    """
    if name in PRESETS or name in CUSTOM:
        return name
    if name.startswith(TIMM_PREFIX) and len(name) > len(TIMM_PREFIX):
        return name
    for spelling in (name.lower(), name.lower().replace("-", "_")):
        if spelling in PRESETS:
            return spelling
        if spelling in ALIASES:
            return ALIASES[spelling]
    hint = "`vitkit models` lists all; any timm model is timm/<name>"
    raise UnknownNameError("model", name, known_names(), hint=f"({hint})")


def family_of(name: str) -> str:
    """The family of a resolved name, a key of :data:`FAMILIES`."""
    if name in PRESETS:
        return PRESETS[name].family
    return "custom" if name in CUSTOM else "timm"


def known_names() -> list[str]:
    """All names but timm's, presets first."""
    return [*PRESETS, *CUSTOM, *ALIASES]


def matching_names(pattern: str = "*") -> list[str]:
    """Presets and registered names that match a shell pattern, in the order of their definition."""
    return [name for name in (*PRESETS, *CUSTOM) if fnmatchcase(name, pattern)]
