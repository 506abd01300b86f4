"""The model card: what is in a folder, what it scored, how to use it. Plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vitkit.records import is_share

__all__ = ["model_card"]

USAGE = {
    "safetensors": """import vitkit

model, preprocessing = vitkit.load_model("{folder}")
image = preprocessing.prepare_image(picture)[None]  # of PIL
logits = model(preprocessing(image))""",
    "timm": """import timm

model = timm.create_model("local-dir:{folder}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
logits = model(transform(picture)[None])""",
    "hf": """from transformers import AutoImageProcessor, AutoModelForImageClassification

processor = AutoImageProcessor.from_pretrained("{folder}")
model = AutoModelForImageClassification.from_pretrained("{folder}")
logits = model(**processor(picture, return_tensors="pt")).logits""",
    "onnx": """import onnxruntime

session = onnxruntime.InferenceSession("{folder}/model.onnx")
# images: float32 (batch, channels, height, width), normalised as preprocessor_config.json says
(logits,) = session.run(None, {{"images": images}})""",
    "torch-export": """import torch

model = torch.export.load("{folder}/model.pt2").module()
# images: float32 (batch, channels, height, width), normalised as preprocessor_config.json says
logits = model(images)""",
}
FACTS = ("data", "weights", "parameters", "epochs", "seed", "precision", "hardware", "git_commit")
LIBRARIES = {"timm": "timm", "hf": "transformers", "onnx": "onnx"}
CLASSES_SHOWN = 20


def model_card(
    name: str,
    format: str,
    folder: str,
    *,
    preprocessing: Mapping[str, Any],
    class_names: Sequence[str],
    metrics: Mapping[str, float],
    facts: Mapping[str, Any],
) -> str:
    """The text of ``README.md``.

    Args:
        name: of the model.
        format: a key of :data:`USAGE`.
        folder: as the usage should call it.
        preprocessing: plain values of ``Preprocessing``.
        class_names: by index; none of an encoder that was pre-trained alone.
        metrics: measured, such as ``test/acc`` in [0, 1]; may be empty.
        facts: about the run that measured them.
    """
    shown = ", ".join(class_names[:CLASSES_SHOWN])
    more = len(class_names) - CLASSES_SHOWN
    kind, what = "image-classification", f"An image classifier of {len(class_names)} classes"
    if not class_names:
        kind, what = "image-feature-extraction", "An image encoder without a classifier"
    classes = shown + (f", and {more} more (config.json)" if more > 0 else "")
    lines = [
        "---",
        f"pipeline_tag: {kind}",
        f"library_name: {LIBRARIES.get(format, 'vitkit')}",
        f"tags: [{kind}, vision-transformer, vitkit]",
        "---",
        "",
        f"# {name}",
        "",
        f"{what}, trained with vitkit.",
        "",
        *_results(metrics, facts),
        "## Use",
        "",
        "```python",
        *USAGE[format].format(folder=folder).splitlines(),
        "```",
        "",
        "## Pictures",
        "",
        *(f"- {key}: {_plain(value)}" for key, value in preprocessing.items()),
        "",
        "## Classes",
        "",
        classes or "None: fine-tune it first.",
    ]
    return "\n".join(lines) + "\n"


def _results(metrics: Mapping[str, float], facts: Mapping[str, Any]) -> list[str]:
    if not metrics:
        return ["## Results", "", "Not measured.", ""]
    rows = [f"| {name} | {_number(name, value)} |" for name, value in metrics.items()]
    about = [f"- {key}: {facts[key]}" for key in FACTS if facts.get(key) is not None]
    return ["## Results", "", "| metric | measured |", "|---|---|", *rows, "", *about, ""]


def _number(name: str, value: float) -> str:
    return f"{value:.2%}" if is_share(name) else f"{value:.4f}"


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_plain(each) for each in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
