"""What the platform must know of a deconfounder without building it. Knows no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CLUSTER: Literal["cluster"] = "cluster"
"""Name in a batch of the subject's cluster: the number of the prototype nearest to its masked context, (B,) int64."""

CONTEXT_FEATURES: Literal["context_features"] = "context_features"
"""Name in a batch of phi's features of the masked context, those that the dictionary clusters, (B, D) float32."""

CONTEXT_INPUTS = (CLUSTER, CONTEXT_FEATURES)

ContextInput = Literal["cluster", "context_features"]


@dataclass(frozen=True, kw_only=True)
class DeconfounderCard:
    """A deconfounder, as a plug-in describes it.

    Attributes:
        name: as given to ``--deconfounder``.
        title: as tables show it.
        module: "package.module:Class" of a ``deconfounders.interface.Deconfounder``, which is called with
            (num_categories, loss, dictionary, feature_dim); empty for those that stand between baseline and
            classifier: none, projection and ccim, which the trial puts together itself.
        uses_dictionary: whether it needs the confounder dictionary.
        trains_with: what it reads of each subject beside the baseline's views. A cluster is known in training alone.
    """

    name: str
    title: str
    module: str = ""
    uses_dictionary: bool = False
    trains_with: tuple[ContextInput, ...] = ()

    def __post_init__(self) -> None:
        if CLUSTER in self.trains_with and not self.uses_dictionary:
            raise ValueError(f"{self.name}: clusters are those of the dictionary, so it uses the dictionary")

    @property
    def uses_context(self) -> bool:
        """Whether masked context features have to be there, for a dictionary or for themselves."""
        return self.uses_dictionary or bool(self.trains_with)
