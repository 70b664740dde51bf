"""What is chosen about an embedded world. The paper's constants live elsewhere; these are the world's own."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

SPLIT_SHARES: dict[str, float] = {
    "train": 0.52,
    "val": 0.09,
    "test_id": 0.13,
    "test_do": 0.13,
    "test_anti": 0.13,
}
"""Share of the images in each split; train takes what rounding leaves."""

MAX_COUNTERFACTUALS = 300
"""Most subjects of test_do that are painted once more in another scene."""


class WorldSettings(BaseModel):
    """A world is a pure function of these values: same settings, same bytes on disk."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    like: Literal["caer_s", "emotic", "groupwalk"] = "caer_s"
    """Label set and on-disk format: 7 single-label, 26 multi-label, or 4 categories."""
    images: int = Field(default=10_000, ge=50)
    """Pictures over all splits, without the counterfactual ones."""
    bias: float = Field(default=0.8, ge=0, le=1)
    """rho: share of a scene's emotions drawn from the scene's own preference."""
    ambiguity: float = Field(default=0.5, ge=0, le=1)
    """Share of subjects whose face and posture do not settle the emotion."""
    annotator_bias: float = Field(default=0.0, ge=0, le=1)
    """eta: share of ambiguous subjects that biased splits label by the scene's preference."""
    image_size: int = Field(default=128, ge=64, le=512)
    """Side of the square pictures, in pixels."""
    seed: int = Field(default=0, ge=0)

    def split_sizes(self) -> dict[str, int]:
        """Images in each split; they add up to ``images``."""
        sizes = {name: round(share * self.images) for name, share in SPLIT_SHARES.items() if name != "train"}
        return {"train": self.images - sum(sizes.values()), **sizes}

    @property
    def counterfactuals(self) -> int:
        """How many subjects of test_do, the first ones, are painted once more in another scene."""
        return min(MAX_COUNTERFACTUALS, self.split_sizes()["test_do"])

    @property
    def pictures(self) -> int:
        """All pictures that are painted."""
        return self.images + self.counterfactuals
