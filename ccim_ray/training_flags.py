"""Flags of jobs that train one setting, or several baselines."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import tyro

from ccim_ray.command_line import Count, Integers, TrainingFlags
from ccim_ray.errors import RequestError

if TYPE_CHECKING:
    from ccim_ray.experiment import Experiment
    from ccim_ray.presets import Preset

SEVERAL_QUICK_IMAGES, SEVERAL_QUICK_EPOCHS = 4_000, 10
"""Pictures of the embedded world and epochs in preset quick of jobs that train several baselines."""

Rate = Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="(default: the baseline's)")]


@dataclass(frozen=True, kw_only=True)
class BaselinesFlags(TrainingFlags):
    """Flags of jobs that train several baselines."""

    baseline: tyro.conf.Suppress[str] = "emot_net"
    baselines: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME [NAME ...]")] = (
        "emot_net",
        "gcn_cnn",
        "caer_net",
        "emoticon",
    )
    """The models to compare; each is trained as its own literature says."""

    def chosen_preset(self) -> Preset:
        """The preset, with fewer pictures in quick, that several models end in minutes too."""
        chosen = super().chosen_preset()
        return replace(chosen, world_images=SEVERAL_QUICK_IMAGES) if self.preset_name == "quick" else chosen

    def experiment(self) -> Experiment:
        """The base experiment, with fewer epochs in quick. Raises RequestError for values that are not valid."""
        base = super().experiment()
        shorter = self.preset_name == "quick" and self.epochs is None
        return base.with_changes(epochs=SEVERAL_QUICK_EPOCHS) if shorter else base

    def experiments(self) -> tuple[Experiment, ...]:
        """One base experiment a baseline. Raises RequestError for an unknown one, or for none."""
        if not self.baselines:
            raise RequestError("--baselines needs at least one name")
        return tuple(replace(self, baseline=name).experiment() for name in dict.fromkeys(self.baselines))


@dataclass(frozen=True, kw_only=True)
class DeconfoundersFlags(BaselinesFlags):
    """Flags of the job that compares deconfounders."""

    baselines: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME [NAME ...]")] = ("emot_net",)
    """The models to train with each deconfounder, as their own literature says."""
    dictionary_size: Count = None
    """N, prototypes in the confounder dictionary: the context clusters of all deconfounders."""

    def experiment(self) -> Experiment:
        """The base experiment with this dictionary. Raises RequestError for values that are not valid."""
        changes = {} if self.dictionary_size is None else {"dictionary__size": self.dictionary_size}
        return super().experiment().with_changes(**changes)


@dataclass(frozen=True, kw_only=True)
class PreviewFlags(TrainingFlags):
    """Flags of the job that screens heads."""

    sizes: Integers = None
    """Dictionary sizes N to try."""

    def _trainable(self) -> str:
        if self.trainable not in (None, "head"):
            raise RequestError(f"--trainable {self.trainable}: a preview trains heads; the other sweeps train all too")
        return "head"


@dataclass(frozen=True, kw_only=True)
class CcimFlags(TrainingFlags):
    """Flags of jobs that train one setting."""

    seeds: Annotated[tuple[int, ...] | None, tyro.conf.arg(metavar="INT [INT ...]")] = (0,)
    """Seeds of initialisation, order and dropout; each is a trial."""
    deconfounder: str = "ccim"
    """none (the baseline as it is), projection (CCIM's control: its W_h without the intervention), ccim, backdoor
    (Eq. 2 as it is written), ipw, logit_adjustment, group_dro or clef."""
    dictionary_size: Count = None
    """N, prototypes in the confounder dictionary."""
    learning_rate: Rate = None
    """Largest learning rate of the schedule."""
    weight_decay: Rate = None
    """Weight decay of the optimiser."""
    attention: str = "dot_product"
    """dot_product (Eq. 6) or additive (Eq. 7)."""
    attention_dim: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: 256)")] = None
    """d_n, rows of W_q and W_k (Eq. 6, 7)."""
    use_lambda: tyro.conf.FlagConversionOff[bool] = True
    """False drops the attention weights lambda of Eq. 5."""
    use_prior: tyro.conf.FlagConversionOff[bool] = True
    """False drops the prior P(z) of Eq. 5."""

    def experiment(self) -> Experiment:
        """The base experiment with these settings. Raises RequestError for values that are not valid."""
        changes = {
            "deconfounder": self.deconfounder,
            "ccim__attention": self.attention,
            "ccim__use_lambda": self.use_lambda,
            "ccim__use_prior": self.use_prior,
            "ccim__attention_dim": self.attention_dim,
            "dictionary__size": self.dictionary_size,
            "learning_rate": self.learning_rate,
            "weight_decay": self.weight_decay,
        }
        given = {key: value for key, value in changes.items() if value is not None}
        return super().experiment().with_changes(**given)
