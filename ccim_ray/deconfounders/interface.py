"""What a deconfounder does around the classifier: another loss in training, another reading of its logits at test.

Shape suffixes: B subjects of a batch, M subjects of the train split, N prototypes, K categories, D context feature.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn

from ccim_ray.baselines.losses import Scale, loss_scale
from ccim_ray.confounders import ConfounderDictionary


class Deconfounder(nn.Module, ABC):
    """Base of all deconfounders: trains what it is told to, and leaves the logits at test as they are.

    What has to survive an interruption is a parameter or a buffer; weights are drawn from torch's global generator.

    Args:
        num_categories: K.
        loss: name of the training loss.
        dictionary: the confounder dictionary; None where its card needs none.
        feature_dim: D.

    Attributes:
        scale: what makes probabilities of its logits at test.
    """

    scale: Scale

    def __init__(
        self, num_categories: int, loss: str, dictionary: ConfounderDictionary | None, feature_dim: int
    ) -> None:
        super().__init__()
        self.loss_name = loss
        self.scale = loss_scale(loss)

    def fit(self, cluster_M: Tensor, targets_MK: Tensor) -> None:
        """Estimate what is estimated once, on the train split, before the first step."""

    @abstractmethod
    def loss(self, logits_BK: Tensor, targets_BK: Tensor, context: Mapping[str, Tensor]) -> Tensor:
        """The loss to minimise, a scalar float32.

        Args:
            logits_BK: the classifier's, float32.
            targets_BK: 0 or 1, float32.
            context: what the card's ``trains_with`` names, each a row a subject.
        """

    def forward(self, logits_BK: Tensor, context: Mapping[str, Tensor]) -> Tensor:
        """Logits (B, K) at test; ``context`` holds the context's features, where the card names them."""
        return logits_BK
