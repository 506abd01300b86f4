"""What a person may say about what is learned: a section class for each task. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from vitkit.errors import UnknownNameError
from vitkit.training.config import Section, list_to_tuple

__all__ = [
    "TASKS",
    "ClassificationConfig",
    "DinoConfig",
    "DistillConfig",
    "FinetuneConfig",
    "LanguageModelTaskConfig",
    "MaskedAutoencoderConfig",
    "TaskConfig",
    "TranslationConfig",
    "task_class",
]

LoraTarget = Literal["q", "k", "v", "proj", "fc1", "fc2"]
Channels = Annotated[tuple[float, ...], BeforeValidator(list_to_tuple)]
Stage = tuple[float, int]


def _scale(value: Any) -> Any:
    """[smallest, largest] share as a tuple: YAML knows lists only."""
    pair = tuple(value) if isinstance(value, list | tuple) else ()
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in pair)
    if len(pair) != 2 or not numbers or not 0 < pair[0] <= pair[1] <= 1:
        raise ValueError("should be a list of two shares above 0 and up to 1, the smaller first")
    return tuple(float(v) for v in pair)


Count = Annotated[int, Field(ge=1)]
Above0 = Annotated[float, Field(gt=0)]
Inside = Annotated[float, Field(gt=0, lt=1)]
Chance = Annotated[float, Field(ge=0, le=1)]
Scale = Annotated[tuple[float, float], BeforeValidator(_scale)]


def _stages(value: Any) -> Any:
    """[[0.3, 16], [0.6, 24]] as tuples: YAML knows lists only."""
    stages = tuple(map(list_to_tuple, value)) if isinstance(value, list | tuple) else (None,)
    right = all(
        isinstance(s, tuple)
        and [type(v) for v in s] in ([float, int], [int, int])
        and 0 < s[0] <= 1
        and s[1] >= 1
        for s in stages
    )
    if not right or [s[0] for s in stages] != sorted({s[0] for s in stages}):
        raise ValueError(
            "should be a list of [share, pixels], the shares rising from above 0 up to 1, such as "
            "[[0.3, 16], [0.6, 24]]"
        )
    return tuple((float(share), side) for share, side in stages)


class DistillConfig(Section):
    """A teacher whose logits are a second goal, of the distillation token if the model has one."""

    teacher: str | None = Field(
        None, description="run folder or checkpoint; with `model` set, a file of its weights"
    )
    model: str | None = Field(
        None, description="name of the model that a bare file of weights belongs to"
    )
    mean: Channels | None = Field(
        None,
        description="a bare file's mean of each channel in [0, 1]; unless given what the file "
        "states or is usual for its layout (0.5 of timm's ViTs), else ImageNet's",
    )
    std: Channels | None = Field(
        None, description="a bare file's standard deviation; unless given as of the mean"
    )
    kind: Literal["soft", "hard"] = Field(
        "soft", description="match the teacher's distribution, or its decision"
    )
    weight: float = Field(0.5, ge=0, le=1, description="share of the teacher's part in the loss")
    temperature: float = Field(1.0, gt=0, description="soft: what both logits are divided by")


def _class_weights(value: Any) -> Any:
    """A word, or numbers above 0 by name: one fault in either case, not one of each."""
    if isinstance(value, dict):
        good = [isinstance(v, int | float) and v is not True and v > 0 for v in value.values()]
        if all(good):
            return {str(name): float(weight) for name, weight in value.items()}
    elif value in ("none", "balanced"):
        return value
    raise ValueError("should be none, balanced, or weights above 0 by class, such as {rare: 4}")


def _mode_alone(value: Any) -> Any:
    """``finetune: lora`` is short for ``finetune: {mode: lora}``."""
    return {"mode": value} if isinstance(value, str) else value


class FinetuneConfig(Section):
    """What of the model is trained; the rest keeps the weights that it came with."""

    mode: Literal["full", "head", "lora", "partial", "bias"] = Field(
        "full",
        description="all weights, the head alone, low-rank adapters, the last blocks, or all "
        "biases; the head always",
    )
    last_blocks: int = Field(2, ge=1, description="partial: how many blocks are trained")
    rank: int = Field(8, ge=1, description="lora: inner width of each adapter")
    alpha: float = Field(16.0, gt=0, description="lora: scale of the adapters, times the rank")
    targets: Annotated[tuple[LoraTarget, ...], BeforeValidator(list_to_tuple)] = Field(
        ("q", "v"), description="lora: adapted layers, some of q, k, v, proj, fc1, fc2"
    )
    freeze_patch_embed: bool = Field(False, description="do not train the patch embedding")
    zero_head: bool = Field(False, description="begin with a head of zeros")
    head: str | None = Field(
        None, description="file of a head that vitkit probe left for these classes, to begin with"
    )

    @model_validator(mode="after")
    def _one_beginning(self) -> FinetuneConfig:
        if self.head is not None and self.zero_head:
            raise ValueError("zero_head and head exclude each other; leave one out")
        return self


class TaskConfig(Section):
    """What every task has. Use :func:`task_class` to get the class of the right one.

    Attributes:
        learns_from: the kind of data that it needs, see ``DataConfig.kind``.
        metric: that picks the best checkpoint, and whether more of it is better.
    """

    learns_from: ClassVar[str] = "images"
    metric: ClassVar[tuple[str, bool]] = ("val/loss", False)

    name: str = Field("classification", description="what is learned")

    def without_weights(self) -> Self:
        """The same task, for a training that goes on from a checkpoint."""
        return self


class ClassificationConfig(TaskConfig):
    """One class for each image: the loss, and what is mixed into its images and targets."""

    metric: ClassVar[tuple[str, bool]] = ("val/acc", True)

    name: Literal["classification"] = Field(
        "classification", description="what is learned: one class for each image"
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of each target spread evenly over all classes"
    )
    mixup: float = Field(
        0.0, ge=0, description="alpha of mixup's Beta(alpha, alpha) distribution; 0 = off"
    )
    cutmix: float = Field(
        0.0, ge=0, description="alpha of cutmix's Beta(alpha, alpha) distribution; 0 = off"
    )
    mix_prob: float = Field(
        1.0, ge=0, le=1, description="probability that mixup or cutmix is applied, if either is on"
    )
    mix_switch_prob: float = Field(
        0.5, ge=0, le=1, description="probability of cutmix rather than mixup, if both are on"
    )
    mix_mode: Literal["image", "batch", "pair", "elem"] = Field(
        "image",
        description="who draws ratio and box: each image with a partner of its own; or, partners "
        "by the reversed batch, the whole batch, each pair, each image",
    )
    progressive_sizes: Annotated[tuple[Stage, ...], BeforeValidator(_stages)] = Field(
        (),
        description="stages with smaller images, each [share of the training at which it ends, "
        "side in pixels]; the rest has the full size",
    )
    distill: DistillConfig = Field(
        default_factory=DistillConfig, description="learn from a teacher beside the labels"
    )
    finetune: Annotated[FinetuneConfig, BeforeValidator(_mode_alone)] = Field(
        default_factory=FinetuneConfig, description="what of a pretrained model is trained"
    )
    class_weights: Annotated[
        Literal["none", "balanced"] | dict[str, float], BeforeValidator(_class_weights)
    ] = Field(
        "none",
        description="balanced = weigh each class by the inverse of its training count; or weights "
        "by name, such as {rare: 4}, and 1 for all others",
    )

    def without_weights(self) -> ClassificationConfig:
        """See :meth:`TaskConfig.without_weights`: no head is read either."""
        finetune = self.finetune.model_copy(update={"head": None})
        return self.model_copy(update={"finetune": finetune})


class MaskedAutoencoderConfig(TaskConfig):
    """Painting hidden patches (He et al., arXiv 2111.06377); needs no labels."""

    name: Literal["mae"] = Field("mae", description="what is learned: to paint hidden patches")
    mask_ratio: Inside = Field(0.75, description="share of the patches that are hidden")
    norm_pix: bool = Field(
        True, description="paint each patch's pixels less their mean, over their deviation"
    )
    decoder_embed_dim: Count = Field(128, description="width of the decoder")
    decoder_depth: Count = Field(2, description="blocks of the decoder")
    decoder_num_heads: Count = Field(4, description="attention heads a block of the decoder")


class DinoConfig(TaskConfig):
    """Agreeing with a teacher that is the student's average, on several views of each image.

    The names are those of Caron et al. (arXiv 2104.14294) and their code.
    """

    name: Literal["dino"] = Field(
        "dino", description="what is learned: to agree with an average of oneself on other views"
    )
    out_dim: Count = Field(1024, description="outputs that student and teacher agree on")
    head_hidden_dim: Count = Field(512, description="width of the projection head's hidden layers")
    head_bottleneck_dim: Count = Field(128, description="width before its last layer")
    student_temp: Above0 = Field(0.1, description="what the student's outputs are divided by")
    teacher_temp: Above0 = Field(0.07, description="what the teacher's are, after the warm-up")
    warmup_teacher_temp: Above0 = Field(0.04, description="what the teacher's are at the start")
    teacher_temp_warmup: float = Field(
        0.15, ge=0, lt=1, description="share of the training in which the teacher's changes"
    )
    momentum_teacher: float = Field(
        0.996,
        ge=0,
        lt=1,
        description="share of itself that the teacher keeps at the first step; it rises to 1 by "
        "the last, as a cosine",
    )
    center_momentum: float = Field(
        0.9, ge=0, lt=1, description="share of itself that the centre of the outputs keeps a step"
    )
    freeze_last_layer: int = Field(
        1, ge=0, description="epochs in which the head's last layer is not trained"
    )
    global_crops_scale: Scale = Field(
        (0.5, 1.0), description="smallest and largest share of the area of the two large views"
    )
    local_crops_scale: Scale = Field(
        (0.2, 0.5), description="smallest and largest share of the area of the small views"
    )
    local_crops_number: int = Field(
        4, ge=0, description="small views of an image, which the student alone sees"
    )
    local_crops_size: int = Field(
        0, ge=0, description="side of the small views in pixels; 0 = half of the image's"
    )
    flip_prob: Chance = Field(0.5, description="probability that a view is mirrored")
    jitter_prob: Chance = Field(0.8, description="probability that a view's colours are changed")
    color_jitter: float = Field(
        0.4, ge=0, description="largest change of brightness, contrast and saturation, as a share"
    )
    color_jitter_hue: float = Field(
        0.1, ge=0, le=0.5, description="largest turn of the hue, as a share of the circle"
    )
    gray_prob: Chance = Field(0.2, description="probability that a view loses its colours")
    blur_prob: Chance = Field(
        0.0, description="probability that a view is blurred, with a sigma of 0.1 to 2 pixels"
    )
    solarize_prob: Chance = Field(
        0.2, description="probability that the second large view's bright pixels are inverted"
    )


class LanguageModelTaskConfig(TaskConfig):
    """The token that follows each token of a text. The loss is the mean over tokens."""

    learns_from: ClassVar[str] = "text"

    name: Literal["language_model"] = Field(
        "language_model", description="what is learned: the next token of a text"
    )


class TranslationConfig(TaskConfig):
    """The next token of a sentence's translation, and how whole translations are searched."""

    learns_from: ClassVar[str] = "sentence pairs"

    name: Literal["translation"] = Field(
        "translation", description="what is learned: the translation of a sentence"
    )
    label_smoothing: float = Field(
        0.1, ge=0, lt=1, description="share of each target spread evenly over all tokens"
    )
    num_beams: int = Field(
        4, ge=1, description="in tests: beams of the search for a translation; 1 = greedy"
    )
    length_penalty: float = Field(
        0.6, ge=0, description="in tests: alpha of ((5 + length) / 6)^alpha; more favours the long"
    )


TASKS: dict[str, type[TaskConfig]] = {
    "classification": ClassificationConfig,
    "mae": MaskedAutoencoderConfig,
    "dino": DinoConfig,
    "language_model": LanguageModelTaskConfig,
    "translation": TranslationConfig,
}
"""Name -> the class of its section."""


def task_class(section: Mapping[str, Any]) -> type[TaskConfig]:
    """The class that knows the keys of a task section.

    Args:
        section: what was given; without a name it is classification.

    Raises:
        UnknownNameError: no such task.
    """
    name = str(section.get("name", "classification"))
    if name not in TASKS:
        raise UnknownNameError("task", name, TASKS, f"tasks: {', '.join(TASKS)}")
    return TASKS[name]
