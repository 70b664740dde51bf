"""Fitting all missing confounder dictionaries, in a Ray task: one PCA serves every size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import ray

from ccim_ray.console import say, stage
from ccim_ray.experiment import DictionarySettings
from ccim_ray.plan import Plan, PlannedDictionary
from ccim_ray.rates import Rates

if TYPE_CHECKING:
    from ccim_ray.confounders import ConfounderDictionary


def build_dictionaries(plan: Plan, rates: Rates) -> None:
    """Build every dictionary of the plan that is not there, from the train split's context features.

    Raises RequestError where a size exceeds the number of features.
    """
    missing = [planned for planned in plan.dictionaries if not planned.path.exists()]
    if not missing:
        return
    sizes = dict.fromkeys(str(planned.settings.size) for planned in missing)
    say(f"Building {len(missing)} confounder dictionaries of N = {', '.join(sizes)}")
    with stage("cluster", "dictionaries", len(missing)) as progress:
        pending = [_build.remote(str(plan.subjects), group) for group in _groups(missing)]
        while pending:
            ready, pending = ray.wait(pending)
            progress.advance(ray.get(ready[0]))
    rates.record("cluster", sum(planned.settings.size for planned in missing), progress.seconds)


def _groups(missing: Sequence[PlannedDictionary]) -> list[list[PlannedDictionary]]:
    """Dictionaries that share features and PCA, built together."""
    groups: dict[tuple[object, ...], list[PlannedDictionary]] = {}
    for planned in missing:
        chosen = planned.settings
        key = (planned.features.key, chosen.source, chosen.pca_components, chosen.seed)
        groups.setdefault(key, []).append(planned)
    return list(groups.values())


@ray.remote(num_cpus=1)  # Ray gives a task one thread: clustering on more would not repeat bit for bit
def _build(subjects: str, group: list[PlannedDictionary]) -> int:
    import numpy as np

    from ccim_ray.confounders import ConfounderDictionary, fit_dictionaries
    from ccim_ray.prepared import read_shards, read_subject_index

    index = read_subject_index(Path(subjects))
    view = read_shards(group[0].features.folder, index.subject_ids)
    usable = np.array([reason is None for reason in view.reasons])
    features_MD = view.take(np.flatnonzero((index.splits == "train") & usable))
    first = group[0].settings
    sizes = sorted({planned.settings.size for planned in group})
    if first.source == "random":
        made = {
            size: ConfounderDictionary.random(size, features_MD.shape[1], first.seed, like_features_MD=features_MD)
            for size in sizes
        }
    else:
        made = fit_dictionaries(features_MD, sizes, first.seed, first.pca_components)
    for planned in group:
        with_prior(made[planned.settings.size], planned.settings).save(planned.path)
    return len(group)


def with_prior(dictionary: ConfounderDictionary, settings: DictionarySettings) -> ConfounderDictionary:
    """The dictionary with the prior that was asked for; a random one has the uniform prior whatever was asked."""
    if settings.source == "random" or settings.prior == "counts":
        return dictionary
    return (
        dictionary.with_shuffled_prior(settings.seed)
        if settings.prior == "shuffled"
        else dictionary.with_uniform_prior()
    )
