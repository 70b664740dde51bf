"""The whole model of one trial: trunks, baseline, CCIM, classifier.

Shape suffixes: B subjects, H joint dimensions, M dimensions of do(X), K categories.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ccim_ray.intervention import CCIM, Projection
from ccim_ray.perception.backbones import Backbone

if TYPE_CHECKING:
    from ccim_ray.baselines.registry import Baseline


class Recogniser(nn.Module):
    """Views of a subject -> logits of its categories.

    Args:
        baseline: maps the views' features to the joint feature h (B, H).
        num_categories: K.
        ccim: the intervention put between h and the classifier (paper Fig. 4b); None leaves it out.
        trunks: the backbone of each view, for training end to end; None where features are given.

    Raises:
        ValueError: a view of the baseline has no trunk.
    """

    def __init__(
        self,
        baseline: Baseline,
        num_categories: int,
        ccim: CCIM | Projection | None = None,
        trunks: Mapping[str, Backbone] | None = None,
    ) -> None:
        super().__init__()
        if trunks is not None and set(trunks) != set(baseline.views):
            raise ValueError(f"trunks for {sorted(trunks)}, but the baseline's views are {baseline.views}")
        self.trunks = nn.ModuleDict(dict(trunks)) if trunks is not None else None
        self.baseline = baseline
        self.ccim = ccim
        hidden_dim = baseline.joint_dim if ccim is None else ccim.joint_projection.out_features
        self.classifier = nn.Linear(hidden_dim, num_categories)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Logits (B, K) float.

        ``inputs`` holds, for each view, features (B, D) float where there are no trunks, else pictures
        (B, S, S, 3) uint8 that are normalised on their device.
        """
        hidden = self.baseline(self._features(inputs))
        if self.ccim is not None:
            hidden = self.ccim(hidden)
        logits_BK: Tensor = self.classifier(hidden)
        return logits_BK

    def _features(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        if self.trunks is None:
            return inputs
        features = {}
        for view, trunk in self.trunks.items():
            assert isinstance(trunk, Backbone)
            features[view] = trunk(trunk.normalise(inputs[view]))
        return features
