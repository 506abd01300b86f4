"""The named sizes of models of pictures, and what else people call them."""

from __future__ import annotations

from collections.abc import Iterator

from vitkit.models.preset import Kwargs, Preset

__all__ = ["picture_aliases", "picture_presets"]

# Sizes: embed_dim, depth, num_heads, mlp_ratio. Sources: arXiv 2010.11929 (base, large, huge),
# 2012.12877 (tiny, small), 2106.04560 (giant, gigantic), 2305.13035 (so400m), as in timm.
_VIT_SIZES: dict[str, tuple[int, int, int, float]] = {
    "tiny": (192, 12, 3, 4.0),
    "small": (384, 12, 6, 4.0),
    "medium": (512, 12, 8, 4.0),
    "base": (768, 12, 12, 4.0),
    "large": (1024, 24, 16, 4.0),
    "huge": (1280, 32, 16, 4.0),
    "giant": (1408, 40, 16, 48 / 11),
    "gigantic": (1664, 48, 16, 64 / 13),
    "so400m": (1152, 27, 16, 3.7362),
}
# (size, patch, image size), timm's names.
_VIT_SHAPES = (
    *(("tiny", 16, 224), ("tiny", 16, 384)),
    *(("small", 32, 224), ("small", 32, 384), ("small", 16, 224), ("small", 16, 384)),
    *(("small", 8, 224), ("base", 32, 224), ("base", 32, 384), ("base", 16, 224)),
    *(("base", 16, 384), ("base", 8, 224), ("large", 32, 224), ("large", 32, 384)),
    *(("large", 16, 224), ("large", 16, 384), ("large", 14, 224)),
    *(("huge", 14, 224), ("giant", 14, 224), ("gigantic", 14, 224)),
)
_DEIT3_SHAPES = (
    *(("small", 16, 224), ("small", 16, 384), ("medium", 16, 224), ("base", 16, 224)),
    *(("base", 16, 384), ("large", 16, 224), ("large", 16, 384), ("huge", 14, 224)),
)
# embed_dim, depth, num_heads, mlp_ratio, kind of MLP; Meta's short name. Source: arXiv 2508.10104,
# as in timm, which calls those with biases of q, k and v "qkvb" and counts the MLP's width alike.
_DINOV3_SIZES: dict[str, tuple[int, int, int, float, str, str]] = {
    "tiny": (192, 12, 3, 4.0, "mlp", ""),
    "small": (384, 12, 6, 4.0, "mlp", "s16"),
    "small_plus": (384, 12, 6, 4.0, "swiglu", "s16plus"),
    "base": (768, 12, 12, 4.0, "mlp", "b16"),
    "large": (1024, 24, 16, 4.0, "mlp", "l16"),
    "huge_plus": (1280, 32, 20, 4.0, "swiglu", "h16plus"),
    "7b": (4096, 40, 32, 2.0, "swiglu", "7b16"),
}
# Both with the exact GELU and with OpenAI's. Source: arXiv 2103.00020, as in timm.
_CLIP_SHAPES = (
    *(("base", 32, 224), ("base", 16, 224), ("large", 14, 224), ("large", 14, 336)),
    ("huge", 14, 224),
)
_SO400M_SHAPES = ((14, 224, "gelu"), (14, 378, "gelu"), (16, 256, "gelu_tanh"))

# Convolutional stems: channels of the first, second and last layers, blocks.
_STEM_SIZES: dict[str, tuple[int, int, int, int]] = {
    "nano": (48, 64, 128, 1),
    "micro": (64, 64, 160, 1),
    "mini": (64, 64, 192, 2),
    "small": (64, 64, 256, 2),
}

# Layers: (depth, num_heads, mlp_ratio, embed_dim); arXiv 2104.05704.
_COMPACT_SIZES: dict[int, tuple[int, int, float, int]] = {
    2: (2, 2, 1.0, 128),
    4: (4, 2, 1.0, 128),
    6: (6, 4, 2.0, 256),
    7: (7, 4, 2.0, 256),
    14: (14, 6, 3.0, 384),
}
# (layers, kernel, convolutions, image size).
_CCT_SHAPES = (
    *((2, 3, 2, 32), (4, 3, 2, 32), (6, 3, 1, 32), (6, 3, 2, 32), (7, 3, 1, 32), (7, 3, 2, 32)),
    *((7, 7, 2, 224), (14, 7, 2, 224), (14, 7, 2, 384)),
)


def _vit(size: str, patch_size: int, img_size: int, num_classes: int, **more: object) -> Kwargs:
    embed_dim, depth, num_heads, mlp_ratio = _VIT_SIZES[size]
    shape: Kwargs = {"img_size": img_size, "patch_size": patch_size, "num_classes": num_classes}
    trunk: Kwargs = {"embed_dim": embed_dim, "depth": depth, "num_heads": num_heads}
    return {**shape, **trunk, "mlp_ratio": mlp_ratio, **more}


def _compact(layers: int, img_size: int, **more: object) -> Kwargs:
    depth, num_heads, mlp_ratio, embed_dim = _COMPACT_SIZES[layers]
    trunk: Kwargs = {"embed_dim": embed_dim, "depth": depth, "num_heads": num_heads}
    shape: Kwargs = {"img_size": img_size, "num_classes": 10 if img_size == 32 else 1000}
    return {**shape, **trunk, "mlp_ratio": mlp_ratio, **more}


def _layer(
    dim: int,
    kernel_size: int = 3,
    pool: int = 1,
    norm: bool = True,
    residual: bool = False,
) -> Kwargs:
    """One layer of a convolutional stem; see :class:`vitkit.models.stem.StemLayer`."""
    shape: Kwargs = {"dim": dim, "kernel_size": kernel_size, "stride": 1, "pool": pool}
    return {**shape, "norm": norm, "residual": residual}


def _small_vits() -> Iterator[tuple[str, Preset]]:
    average: Kwargs = {"class_token": False, "global_pool": "avg"}
    digits: Kwargs = {"img_size": 8, "patch_size": 2, "in_chans": 1, "num_classes": 10}
    digits |= {"embed_dim": 64, "depth": 4, "num_heads": 4, **average}
    yield "vit_digits", Preset("vit", digits, "8 px grey, patch 2: the model of `make train`")
    mini: Kwargs = {"img_size": 32, "patch_size": 4, "num_classes": 10}
    mini |= {"embed_dim": 128, "depth": 6, "num_heads": 4, **average}
    yield "vit_mini_patch4_32", Preset("vit", mini, "32 px, patch 4: small and quick")
    for size, (first, middle, last, depth) in _STEM_SIZES.items():
        layers = (
            _layer(24, kernel_size=2, norm=False),
            _layer(first, pool=2),
            _layer(middle, residual=middle == first),
            _layer(last, pool=2),
            *(_layer(last, residual=True) for _ in range(2)),
        )
        stem: Kwargs = {**mini, "embed_dim": last, "depth": depth, "num_heads": last // 32}
        stem |= {"mlp_ratio": 2.0, "qkv_bias": False, "fc_norm": False}
        stem |= {"conv_stem": layers, "whiten_stem": True, "dynamic_img_size": True}
        doc = "32 px, small convolutions, 49 tokens: for minutes on a CPU"
        yield f"vit_stem_{size}_32", Preset("vit", stem, doc)
    for size in ("tiny", "small"):
        doc = f"32 px, patch 4: the {size} ViT for CIFAR"
        yield f"vit_{size}_patch4_32", Preset("vit", _vit(size, 4, 32, 10), doc)


def _vits() -> Iterator[tuple[str, Preset]]:
    for size, patch, pixels in _VIT_SHAPES:
        doc = f"ViT {size}, patch {patch}, {pixels} px (timm)"
        kwargs = _vit(size, patch, pixels, 1000)
        yield f"vit_{size}_patch{patch}_{pixels}", Preset("vit", kwargs, doc)
    for patch, pixels, act in _SO400M_SHAPES:
        more: Kwargs = {"class_token": False, "global_pool": "map", "act_layer": act}
        kwargs = _vit("so400m", patch, pixels, 1000, **more)
        doc = f"shape-optimised ViT of SigLIP, map pooling, patch {patch}, {pixels} px (timm)"
        yield f"vit_so400m_patch{patch}_siglip_{pixels}", Preset("vit", kwargs, doc)
    for act, suffix, told in (("gelu", "", "GELU"), ("quick_gelu", "_quickgelu", "QuickGELU")):
        for size, patch, pixels in _CLIP_SHAPES:
            more = {"pre_norm": True, "norm_eps": 1e-5, "act_layer": act}
            kwargs = _vit(size, patch, pixels, 1000, **more)
            doc = f"image tower of CLIP, {size}, patch {patch}, {pixels} px, {told} (timm)"
            yield f"vit_{size}_patch{patch}_clip{suffix}_{pixels}", Preset("vit", kwargs, doc)
    for size, patch, pixels in _DEIT3_SHAPES:
        doc = f"DeiT III {size}: LayerScale, positions on patches only, {pixels} px (timm)"
        kwargs = _vit(size, patch, pixels, 1000, no_embed_class=True, init_values=1e-6)
        yield f"deit3_{size}_patch{patch}_{pixels}", Preset("vit", kwargs, doc)


def _dinov3() -> Iterator[tuple[str, Preset]]:
    for size, (embed_dim, depth, num_heads, mlp_ratio, mlp, _) in _DINOV3_SIZES.items():
        shape: Kwargs = {"img_size": 256, "patch_size": 16, "num_classes": 1000}
        shape |= {"embed_dim": embed_dim, "depth": depth, "num_heads": num_heads}
        shape |= {"mlp_ratio": mlp_ratio, "init_values": 1e-5, "reg_tokens": 4}
        shape |= {"pos_embed": "rotary_centred", "norm_eps": 1e-5, "dynamic_img_size": True}
        shape |= {"mlp_layer": mlp} if mlp == "swiglu" else {}
        name = f"vit_{size}_patch16_dinov3"
        what = f"DINOv3 {size.replace('_', ' ')}: registers, rotary positions of patch centres"
        if size != "tiny":
            yield name, Preset("vit", {**shape, "qkv_bias": False}, f"{what} (timm)")
        if size != "7b":
            yield f"{name}_qkvb", Preset("vit", shape, f"{what}, biases of q, k and v (timm)")


def _distilled() -> Iterator[tuple[str, Preset]]:
    mini: Kwargs = {"img_size": 32, "patch_size": 4, "num_classes": 10}
    mini |= {"embed_dim": 128, "depth": 6, "num_heads": 4}
    doc = "32 px, patch 4, with a distillation token"
    yield "vit_mini_distilled_patch4_32", Preset("vit_distilled", mini, doc)
    for size, pixels in (("tiny", 224), ("small", 224), ("base", 224), ("base", 384)):
        doc = f"DeiT {size} with a distillation token, {pixels} px (timm)"
        kwargs = _vit(size, 16, pixels, 1000)
        yield f"deit_{size}_distilled_patch16_{pixels}", Preset("vit_distilled", kwargs, doc)


def _resnets() -> Iterator[tuple[str, Preset]]:
    for depth in (20, 32, 44, 56, 110):
        kwargs: Kwargs = {"img_size": 32, "num_classes": 10, "depth": depth, "embed_dim": 64}
        doc = f"ResNet-{depth} of CIFAR, 32 px: a teacher to distil from"
        yield f"resnet{depth}_32", Preset("resnet", kwargs, doc)


def _compacts() -> Iterator[tuple[str, Preset]]:
    for layers, kernel, convs, pixels in _CCT_SHAPES:
        more: Kwargs = {"kernel_size": kernel, "num_conv_layers": convs}
        name, doc = f"cct_{layers}_{kernel}x{convs}_{pixels}", f"CCT-{layers}/{kernel}x{convs}"
        yield name, Preset("compact", _compact(layers, pixels, **more), f"{doc}, {pixels} px")
        if layers == 7 and (kernel, convs) in ((3, 1), (7, 2)):
            kwargs = _compact(layers, pixels, positional_embedding="sine", **more)
            yield f"{name}_sine", Preset("compact", kwargs, f"{doc}, {pixels} px, sine positions")
    for layers in (6, 7):
        more = {"tokenizer": "patch", "patch_size": 4}
        doc = f"CVT-{layers}/4, 32 px: patches, sequence pooling"
        yield f"cvt_{layers}_4_32", Preset("compact", _compact(layers, 32, **more), doc)
        kwargs = _compact(layers, 32, global_pool="token", **more)
        doc = f"ViT-Lite-{layers}/4, 32 px: patches, class token"
        yield f"vit_lite_{layers}_patch4_32", Preset("compact", kwargs, doc)


# MLP-Mixer: embed_dim, depth. Source: arXiv 2105.01601, as in timm.
_MIXER_SIZES: dict[str, tuple[int, int]] = {"s": (512, 8), "b": (768, 12), "l": (1024, 24)}
# ConvMixer: what follows the width and depth in timm's name, embed_dim, depth, kernel, patch,
# activation. Source: arXiv 2201.09792, as in timm.
_CONVMIXER_SHAPES = (
    *(("", 1536, 20, 9, 7, "gelu"), ("", 768, 32, 7, 7, "relu")),
    ("_ks9_p14", 1024, 20, 9, 14, "gelu"),
)


def _mixers() -> Iterator[tuple[str, Preset]]:
    for size, (embed_dim, depth) in _MIXER_SIZES.items():
        for patch in (32, 16):
            kwargs: Kwargs = {"img_size": 224, "patch_size": patch, "num_classes": 1000}
            kwargs |= {"blocks": ("mixer",), "depth": depth, "embed_dim": embed_dim}
            doc = f"MLP-Mixer {size.upper()}/{patch}, 224 px (timm)"
            yield f"mixer_{size}{patch}_224", Preset("hybrid", kwargs, doc)
    conv: Kwargs = {"blocks": ("conv",), "stem": "convmixer", "final_norm": False}
    for suffix, embed_dim, depth, kernel, patch, act in _CONVMIXER_SHAPES:
        kwargs = {"img_size": 224, "patch_size": patch, "num_classes": 1000, **conv}
        kwargs |= {"embed_dim": embed_dim, "depth": depth, "kernel_size": kernel, "act_layer": act}
        doc = f"ConvMixer-{embed_dim}/{depth}, patch {patch}, kernel {kernel}, 224 px (timm)"
        yield f"convmixer_{embed_dim}_{depth}{suffix}", Preset("hybrid", kwargs, doc)
    kwargs = {"img_size": 32, "patch_size": 2, "num_classes": 10, **conv}
    kwargs |= {"embed_dim": 256, "depth": 8, "kernel_size": 5}
    doc = "ConvMixer-256/8, patch 2, kernel 5, 32 px: CIFAR"
    yield "convmixer_256_8_32", Preset("hybrid", kwargs, doc)


def _notebooks() -> Iterator[tuple[str, Preset]]:
    """The models of the four notebooks of "Transformers: from NLP to CV", with their dropout."""

    def preset(
        number: int, what: str, img_size: int, patch_size: int, embed_dim: int, **more: object
    ) -> Preset:
        shape: Kwargs = {"img_size": img_size, "patch_size": patch_size, "num_classes": 10}
        kwargs = {**shape, "embed_dim": embed_dim, "final_norm": False, **more}
        doc = f"notebook {number}: {what}, {img_size} px, patch {patch_size} (docs/notebooks.md)"
        return Preset("hybrid", kwargs, doc)

    def mixer(width: int, drop: float) -> Kwargs:
        widths: Kwargs = {"tokens_mlp_dim": width, "channels_mlp_dim": width}
        return {**widths, "shared_norm": True, "mixer_drop_rate": drop, "drop_rate": drop}

    attention: Kwargs = {"num_heads": 4, "head_dim": 64, "mlp_act_last": True}
    attention |= {"attn_drop_rate": 0.1, "mlp_drop_rate": 0.1}
    tanh: Kwargs = {"act_layer": "gelu_tanh"}
    # Keras' defaults.
    conv: Kwargs = {"stem": "convmixer", "kernel_size": 5, "bn_eps": 1e-3, "bn_momentum": 0.01}

    vit: Kwargs = {"blocks": ("attention",), **attention, "mlp_ratio": 2.0, "pos_embed": "learn"}
    vit |= {"final_norm": True, "global_pool": "flatten"}
    vit |= {"head_hidden_dims": (2048, 1024), "drop_rate": 0.5}
    yield "nb01_vit", preset(1, "ViT of one block", 72, 6, 64, **vit)

    four: Kwargs = {"blocks": ("mixer",) * 4, **mixer(16, 0.2), **tanh}
    yield "nb02_mixer", preset(2, "MLP-Mixer of four blocks", 32, 8, 256, **four)

    two: Kwargs = {"blocks": ("mixer",) * 2, **mixer(64, 0.2), **tanh}
    yield "nb03_mixer", preset(3, "MLP-Mixer of two blocks", 64, 8, 128, **two)
    vit = {"blocks": ("attention",), **attention, **tanh, "drop_rate": 0.3}
    wide = {**vit, "mlp_ratio": 0.25}
    deep: Kwargs = {**vit, "mlp_ratio": 0.5, "blocks": ("attention",) * 2}
    yield "nb03_vit1", preset(3, "ViT of one block of width 256", 64, 8, 256, **wide)
    yield "nb03_vit2", preset(3, "ViT of two blocks of width 128", 64, 8, 128, **deep)
    both: Kwargs = {**attention, "mlp_ratio": 0.5, **mixer(64, 0.4), **tanh}
    one: Kwargs = {"blocks": ("mixer", "attention"), **both}
    yield "nb03_mixer_vit", preset(3, "MLP-Mixer and ViT, a block each", 64, 8, 128, **one)
    three: Kwargs = {"blocks": ("mixer", "mixer", "attention"), **both}
    yield "nb03_2mixer_vit", preset(3, "two MLP-Mixer blocks, one ViT's", 64, 8, 128, **three)

    single: Kwargs = {"blocks": ("mixer",), **mixer(256, 0.5), **tanh}
    yield "nb04_mixer", preset(4, "MLP-Mixer of one block", 64, 4, 64, **single)
    tiny: Kwargs = {"blocks": ("conv",), **conv}
    yield "nb04_convmixer", preset(4, "ConvMixer-16/1", 32, 2, 16, **tiny)
    last: Kwargs = {"blocks": ("conv", "mixer"), **conv, **mixer(256, 0.9), "drop_rate": 0.0}
    yield "nb04_convmixer_mixer", preset(4, "ConvMixer and MLP-Mixer", 32, 2, 16, **last)


def picture_presets() -> Iterator[tuple[str, Preset]]:
    """(name, preset), in the order in which people read them."""
    yield from _small_vits()
    yield from _vits()
    yield from _dinov3()
    yield from _distilled()
    yield from _compacts()
    yield from _mixers()
    yield from _notebooks()
    yield from _resnets()


def picture_aliases() -> Iterator[tuple[str, str]]:
    """(what else people call a model, its name)."""
    letters = {"tiny": "ti", "small": "s", "base": "b", "large": "l", "huge": "h"}
    for size, patch, pixels in _VIT_SHAPES:
        name = f"vit_{size}_patch{patch}_{pixels}"
        if pixels == 384:
            yield f"google/vit-{size}-patch{patch}-384", name
        elif size in letters:
            short = letters[size]
            yield f"vit_{short}_{patch}", name
            yield f"vit_{short}{patch}", name
            yield f"vit_{short}/{patch}", name
            yield f"google/vit-{size}-patch{patch}-224", name
    for size, patch, pixels in _CLIP_SHAPES[:-1]:
        end = "" if pixels == 224 else f"-{pixels}"
        name = f"vit_{size}_patch{patch}_clip_quickgelu_{pixels}"
        yield f"openai/clip-vit-{size}-patch{patch}{end}", name
    yield "vit_g/14", "vit_giant_patch14_224"
    yield "vit_g_14", "vit_giant_patch14_224"
    yield "vit_so400m_patch14_224", "vit_so400m_patch14_siglip_224"
    for size in ("tiny", "small", "base"):
        short, target = letters[size], f"vit_{size}_patch16_224"
        for alias in (f"deit_{size}_patch16_224", f"deit_{size}", f"deit_{short}"):
            yield alias, target
        yield f"facebook/deit-{size}-patch16-224", target
    yield "deit_base_patch16_384", "vit_base_patch16_384"
    for size, (*_, short) in _DINOV3_SIZES.items():
        if short:
            suffix = "" if size == "7b" else "_qkvb"
            yield f"dinov3_vit{short}", f"vit_{size}_patch16_dinov3{suffix}"
    for size, short in (("tiny", "ti"), ("small", "s")):
        for alias in (f"vit_{short}/4", f"vit_{short}_4", f"vit_{size}_32"):
            yield alias, f"vit_{size}_patch4_32"
    for layers in (6, 7):
        yield f"vit_lite_{layers}/4", f"vit_lite_{layers}_patch4_32"
        yield f"vit_lite_{layers}_4_32", f"vit_lite_{layers}_patch4_32"
        yield f"cvt_{layers}/4", f"cvt_{layers}_4_32"
        yield f"cvt_{layers}_4", f"cvt_{layers}_4_32"
    for layers, kernel, convs, pixels in _CCT_SHAPES[:-1]:
        name = f"cct_{layers}_{kernel}x{convs}_{pixels}"
        yield f"cct_{layers}/{kernel}x{convs}", name
        yield f"cct_{layers}_{kernel}x{convs}", name
