"""Two-view vision from the core that words and pictures share: CroCo, DUSt3R, MASt3R, Fast3R.

    python -m examples.two_view.toy

Prints how far off a tiny two-view model's points are before and after its training. The models are
built of ``vitkit.nn``'s public parts; no weights come with them.
"""

from examples.two_view.croco import CroCo
from examples.two_view.dust3r import TwoView
from examples.two_view.fast3r import FUSION_LARGE, Fast3R
from examples.two_view.heads import PointMap
from examples.two_view.keys import fast3r_from_dust3r, load_published, to_published
from examples.two_view.matching import match_views, reciprocal_matches
from examples.two_view.published import open_published
from examples.two_view.sizes import TOY, Sizes

__all__ = [
    "FUSION_LARGE",
    "TOY",
    "CroCo",
    "Fast3R",
    "PointMap",
    "Sizes",
    "TwoView",
    "fast3r_from_dust3r",
    "load_published",
    "match_views",
    "open_published",
    "reciprocal_matches",
    "to_published",
]
