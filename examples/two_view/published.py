"""A model from a published file: its constructor is text in it, which is read and never run."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import math
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from examples.two_view.croco import CroCo
from examples.two_view.dust3r import TwoView
from examples.two_view.keys import load_published
from examples.two_view.sizes import Sizes
from vitkit.errors import WeightsError

__all__ = ["model_of", "open_published", "parse_constructor"]

TWO_VIEW_CLASSES = ("AsymmetricCroCo3DStereo", "AsymmetricMASt3R")
SIZE_NAMES = {field.name for field in dataclasses.fields(Sizes)}
NAMES = {"inf": math.inf, "True": True, "False": False, "None": None}


def parse_constructor(text: str) -> tuple[str, dict[str, Any]]:
    """``Name(key=value, ...)`` -> the name and its arguments.

    Values may be numbers, texts, ``inf``, and tuples or lists of these.

    Raises:
        WeightsError: anything else, such as a call within the call.
    """
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise WeightsError(_refusal(text)) from error
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
        raise WeightsError(_refusal(text))
    settings = {}
    for keyword in call.keywords:
        if keyword.arg is None:
            raise WeightsError(_refusal(text))
        settings[keyword.arg] = _value(keyword.value, text)
    return call.func.id, settings


def model_of(content: dict[str, Any]) -> nn.Module:
    """The model that a file's content describes, without its weights.

    Raises:
        WeightsError: neither CroCo's nor DUSt3R's and MASt3R's way of describing it.
    """
    if isinstance(settings := content.get("croco_kwargs"), dict):
        return CroCo(_sizes(settings))
    arguments = content.get("args")
    text = getattr(arguments, "model", None)
    if not isinstance(text, str):
        raise WeightsError(
            "the file says nothing of its model; expected `croco_kwargs` or `args.model` in it"
        )
    name, settings = parse_constructor(text)
    if name not in TWO_VIEW_CLASSES:
        raise WeightsError(f"the file holds a {name}; known: {', '.join(TWO_VIEW_CLASSES)}")
    return TwoView(str(settings.get("head_type", "linear")), _sizes(settings))


def open_published(path: str | Path) -> nn.Module:
    """The model in a CroCo, DUSt3R or MASt3R file, in evaluation mode.

    Raises:
        WeightsError: no such file, one that holds code, or of another model.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"no such weights file: {path}")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise WeightsError(
            f"{path} is damaged or holds more than tensors and plain values; download it again"
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise WeightsError(f"{path} holds no `model`; expected a CroCo, DUSt3R or MASt3R file")
    model = model_of(content)
    load_published(model, content["model"])
    return model.eval()


def _sizes(settings: dict[str, Any]) -> Sizes:
    known = {name: value for name, value in settings.items() if name in SIZE_NAMES}
    side = known.get("img_size", Sizes.img_size)
    known["img_size"] = (side, side) if isinstance(side, int) else tuple(side)
    return Sizes(**known)


def _value(node: ast.expr, text: str) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name) and node.id in NAMES:
        return NAMES[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _value(node.operand, text)
        if isinstance(value, int | float):
            return -value
    if isinstance(node, ast.Tuple):
        return tuple(_value(item, text) for item in node.elts)
    if isinstance(node, ast.List):
        return [_value(item, text) for item in node.elts]
    raise WeightsError(_refusal(text))


def _refusal(text: str) -> str:
    shown = text if len(text) <= 80 else text[:77] + "..."
    return f"cannot read the model's description {shown!r}; expected Name(key=value, ...)"
