"""A baseline, the deconfounder where it has one, and the classifier, as one module.

Shape suffixes: B subjects, H joint dimensions, M dimensions of do(X) or modalities, K categories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from ccim_ray.baselines.card import Input
from ccim_ray.deconfounders.interface import Deconfounder
from ccim_ray.intervention import CCIM, FoldedCCIM, Projection
from ccim_ray.perception.backbones import Backbone


class Prediction(NamedTuple):
    """What a recogniser gives.

    Attributes:
        logits_BK: of the categories.
        modality_logits_BMK: each modality's own, where the baseline has them (EmotiCon); else None.
    """

    logits_BK: Tensor
    modality_logits_BMK: Tensor | None


class Recogniser(nn.Module):
    """Views of a subject -> logits of its categories.

    Args:
        baseline: maps features by view to the joint feature h (B, H), or to h and its modalities' logits.
        inputs: what the baseline reads.
        num_categories: K.
        ccim: the intervention put between h and the classifier (paper Fig. 4b); None leaves it out.
        trunks: the backbone of each picture view, for training end to end; None where features are given.

    Raises:
        ValueError: a picture view of the baseline has no trunk.
    """

    def __init__(
        self,
        baseline: nn.Module,
        inputs: Sequence[Input],
        num_categories: int,
        ccim: CCIM | FoldedCCIM | Projection | None = None,
        trunks: Mapping[str, Backbone] | None = None,
        deconfounder: Deconfounder | None = None,
    ) -> None:
        super().__init__()
        self._inputs = tuple(inputs)
        pictured = {item.view for item in inputs if item.form != "geometry"}
        if trunks is not None and set(trunks) != pictured:
            raise ValueError(f"trunks for {sorted(trunks)}, but the baseline's picture views are {sorted(pictured)}")
        self.trunks = nn.ModuleDict(dict(trunks)) if trunks is not None else None
        self.baseline = baseline
        self.ccim = ccim
        joint_dim: int = baseline.joint_dim  # type: ignore[assignment]  # a member of every baseline
        hidden_dim = joint_dim if ccim is None else ccim.output_dim
        self.classifier = nn.Linear(hidden_dim, num_categories)
        self.deconfounder = deconfounder

    def forward(self, inputs: Mapping[str, Tensor]) -> Prediction:
        """Logits (B, K) float.

        ``inputs`` holds, for each picture view, features (B, D) or maps (B, D, h, w) float where there are no trunks,
        else pictures (B, S, S, 3) uint8 that are normalised on their device; and each geometry view's tensor. In
        evaluation, also the context's features where the deconfounder reads them.
        """
        joint = self.baseline(self.features(inputs))
        hidden, modality_logits_BMK = joint if isinstance(joint, tuple) else (joint, None)
        if self.ccim is not None:
            hidden = self.ccim(hidden)
        logits_BK: Tensor = self.classifier(hidden)
        if self.deconfounder is not None and not self.training:
            logits_BK = self.deconfounder(logits_BK, inputs)
        return Prediction(logits_BK, modality_logits_BMK)

    def features(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the baseline reads, by view."""
        found: dict[str, Tensor] = {}
        for item in self._inputs:
            view = inputs[item.view]
            if self.trunks is None or item.form == "geometry":
                found[item.view] = view.float()
                continue
            trunk = self.trunks[item.view]
            assert isinstance(trunk, Backbone)
            found[item.view] = trunk.features(trunk.normalise(view), item.form)
        return found
