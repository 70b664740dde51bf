"""Flags of the hyper-parameter search, and the command that trains what it chose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ccim_ray.command_line import Count, Integers, some, typed_command
from ccim_ray.errors import RequestError
from ccim_ray.training_flags import CcimFlags

if TYPE_CHECKING:
    from ccim_ray.experiment import Experiment

NUM_SAMPLES = {"smoke": 4, "quick": 20, "paper": 50}
"""Trials of a search in each preset."""

FIRST_FRESH_SEED = 10

_FLAG_OF = {
    "dictionary__size": "dictionary_size",
    "ccim__attention": "attention",
    "ccim__attention_dim": "attention_dim",
}
"""Field of CcimFlags of those settings whose key has another name."""


@dataclass(frozen=True, kw_only=True)
class SearchFlags(CcimFlags):
    """Flags of the hyper-parameter search."""

    num_samples: Count = None
    """Trials of the search in all; with more than before, the search goes on."""
    grace_epochs: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: a fifth)")] = None
    """ASHA: no trial is stopped before so many epochs."""
    reduction_factor: int = 3
    """ASHA: of those that reach the grace epochs, one in so many goes on to so many times as many epochs, and so on."""
    search_seed: int = 0
    """Seed of what Optuna proposes."""
    seed: int = 0
    """Seed of every trial's initialisation, order and dropout."""
    sizes: Integers = None
    """N, prototypes in the confounder dictionary, to choose from; one number fixes it."""
    seeds: tyro.conf.Suppress[tuple[int, ...] | None] = (0,)
    dictionary_size: tyro.conf.Suppress[int | None] = None
    attention: tyro.conf.Suppress[str] = "dot_product"
    attention_dim: tyro.conf.Suppress[int | None] = None

    def experiment(self) -> Experiment:
        """The experiment whose settings are varied. Raises RequestError for values that are not valid."""
        base = super().experiment()
        only = {"dictionary__size": self.sizes[0]} if self.sizes and len(set(self.sizes)) == 1 else {}
        return base.with_changes(seed=self.seed, **only)

    def chosen_sizes(self) -> tuple[int, ...]:
        """Sizes of the dictionary to choose from. Raises RequestError where none, or one below 1, was given."""
        sizes = tuple(sorted(some("--sizes", self.sizes, self.chosen_preset().sizes)))
        if sizes[0] < 1:
            raise RequestError(f"--sizes {sizes[0]}: a dictionary needs at least one prototype")
        return sizes

    def fixed(self) -> tuple[str, ...]:
        """Keys of the settings that the command line fixes."""
        return tuple(key for key in ("learning_rate", "weight_decay", "batch_size") if getattr(self, key) is not None)

    def chosen_num_samples(self) -> int:
        """Raises RequestError for less than one trial."""
        samples = NUM_SAMPLES[self.preset_name] if self.num_samples is None else self.num_samples
        if samples < 1:
            raise RequestError(f"--num-samples {samples}: a search needs at least one trial")
        return samples

    def early_stopping(self, epochs: int) -> tuple[int, int]:
        """ASHA's grace epochs and reduction factor. Raises RequestError for values out of range."""
        grace = max(1, epochs // 5) if self.grace_epochs is None else self.grace_epochs
        if not 1 <= grace <= epochs:
            raise RequestError(f"--grace-epochs {grace}: give a whole number from 1 to the {epochs} epochs of a trial")
        if self.reduction_factor < 2:
            raise RequestError(f"--reduction-factor {self.reduction_factor}: give a whole number from 2")
        return grace, self.reduction_factor

    def fresh_seeds(self) -> tuple[int, ...]:
        """As many seeds as the preset trains, three at least, without the one that was searched with."""
        count = max(3, len(self.chosen_preset().seeds))
        usable = (seed for seed in range(FIRST_FRESH_SEED, FIRST_FRESH_SEED + count + 1) if seed != self.seed)
        return tuple(seed for seed, _ in zip(usable, range(count), strict=False))

    def rerun(self, values: Mapping[str, Any], job: Path) -> str:
        """The command that trains these values with fresh seeds: where the test splits are looked at."""
        shared = {field.name: getattr(self, field.name) for field in fields(CcimFlags)}
        chosen = {_FLAG_OF.get(key, key): value for key, value in values.items()}
        if self.sizes and len(set(self.sizes)) == 1:
            chosen["dictionary_size"] = self.sizes[0]
        shared |= {"seeds": self.fresh_seeds()}
        flags = replace(CcimFlags(**shared), plan=False, price_per_hour=None, quiet=False, log="text", **chosen)
        return typed_command([str(job), *written_out(flags)])


def written_out(flags: CcimFlags) -> list[str]:
    """The flags as they are typed, those that have their default left out."""
    words = []
    for field in fields(flags):
        value = getattr(flags, field.name)
        if value == (None if field.default is MISSING else field.default):
            continue
        flag = f"--{field.name.replace('_', '-')}"
        if isinstance(value, bool) and field.default is False:
            words.append(flag)
        elif isinstance(value, tuple):
            words += [flag, *(str(item) for item in value)]
        else:
            words += [flag, f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)]
    return words
