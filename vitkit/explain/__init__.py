"""Pictures of what a model does: where it looks, what it looks for, what becomes of its tokens.

Tensors in, tensors out; :mod:`vitkit.explain.pictures` makes images of them. Models are vitkit's
ViTs (plain, distilled, with a stem), compact Transformers and hybrids, and timm's VisionTransformer
and DeiT; whatever else is given gets one clear error. No function changes a model or its gradients.
"""

from vitkit.explain.cams import grad_cam
from vitkit.explain.distances import attention_distance, mean_attention_distance
from vitkit.explain.embeddings import METHODS, embedding_map, pooled_features
from vitkit.explain.entropies import attention_entropy, mean_attention_entropy
from vitkit.explain.filters import PatchFilters, patch_filters, principal_components
from vitkit.explain.gradients import relevance
from vitkit.explain.maps import attention_maps
from vitkit.explain.positions import position_similarity
from vitkit.explain.rollouts import FUSIONS, attention_rollout, rollout
from vitkit.explain.shapes import ShapeStep, token_shapes
from vitkit.explain.tokens import block_tokens, class_token_similarity, token_norms
from vitkit.nn import record_attention

__all__ = [
    "FUSIONS",
    "METHODS",
    "PatchFilters",
    "ShapeStep",
    "attention_distance",
    "attention_entropy",
    "attention_maps",
    "attention_rollout",
    "block_tokens",
    "class_token_similarity",
    "embedding_map",
    "grad_cam",
    "mean_attention_distance",
    "mean_attention_entropy",
    "patch_filters",
    "pooled_features",
    "position_similarity",
    "principal_components",
    "record_attention",
    "relevance",
    "rollout",
    "token_norms",
    "token_shapes",
]
