"""Fitting all missing confounder dictionaries, in Ray tasks: one PCA serves every size.

Features that fit in memory are clustered in one task; larger ones block by block, in a task a block.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import ray

from ccim_ray.console import say, stage
from ccim_ray.errors import RequestError
from ccim_ray.experiment import DictionarySettings
from ccim_ray.plan import Plan, PlannedDictionary
from ccim_ray.prepared import read_subject_index
from ccim_ray.rates import Rates
from ccim_ray.storage import clear_scratch, scratch_folder

if TYPE_CHECKING:
    from ccim_ray.confounders import ConfounderDictionary
    from ccim_ray.feature_blocks import FeatureBlock

MEMORY_SHARE = 0.3
"""Features that take more of a node's memory than this are clustered block by block."""

T = TypeVar("T")


def build_dictionaries(plan: Plan, rates: Rates) -> None:
    """Build every dictionary of the plan that is not there, or is damaged, from the train split's context features.

    Raises RequestError where a size exceeds the number of features.
    """
    for folder in {planned.path.parent for planned in plan.dictionaries}:
        clear_scratch(folder)  # of runs that were killed while they clustered
    missing = [planned for planned in plan.dictionaries if not _is_usable(planned.path)]
    if not missing:
        return
    from ccim_ray.feature_blocks import feature_blocks

    sizes = dict.fromkeys(str(planned.settings.size) for planned in missing)
    say(f"Building {len(missing)} confounder dictionaries of N = {', '.join(sizes)}")
    in_train = read_subject_index(plan.subjects).splits == "train"
    pending = []
    for group in _groups(missing):
        blocks = feature_blocks(group[0].features.folder, in_train)
        large = is_large(blocks)
        if large:
            say("  their features take much of this machine's memory: clustering them block by block")
        pending.append(_build.remote(blocks, group, large))
    with stage("cluster", "dictionaries", len(missing)) as progress:
        while pending:
            ready, pending = ray.wait(pending)
            progress.advance(ray.get(ready[0]))
    rates.record("cluster", sum(planned.settings.size for planned in missing), progress.seconds)


def _is_usable(path: Path) -> bool:
    """Whether the dictionary is there; of one that is damaged is told, for it is made again."""
    from ccim_ray.confounders import ConfounderDictionary

    if not path.exists():
        return False
    try:
        ConfounderDictionary.load(path)
    except RequestError as error:
        say(f"  made again: {str(error).rpartition(';')[0]}")
        return False
    return True


def is_large(blocks: Sequence[FeatureBlock]) -> bool:
    """Whether these features would take more than MEMORY_SHARE of the memory that Ray has on its smallest node."""
    nodes = [node["Resources"].get("memory") for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    memory = min((held for held in nodes if held), default=float("inf"))
    return 4 * sum(block.most_rows * block.width for block in blocks) > MEMORY_SHARE * memory


def in_ray_tasks(tasks: Iterable[Callable[[], T]]) -> Iterator[T]:
    """Results of the tasks in their order; twice as many as there are CPUs are waited for at a time."""
    cluster: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    at_a_time = 2 * max(1, int(cluster.get("CPU", 1)))
    pending: deque[ray.ObjectRef[T]] = deque()
    for task in tasks:
        if len(pending) == at_a_time:
            yield ray.get(pending.popleft())
        pending.append(_run.remote(task))  # type: ignore[arg-type]  # Ray's types know no generic task
    while pending:
        yield ray.get(pending.popleft())


def _groups(missing: Sequence[PlannedDictionary]) -> list[list[PlannedDictionary]]:
    """Dictionaries that share features and PCA, built together."""
    groups: dict[tuple[object, ...], list[PlannedDictionary]] = {}
    for planned in missing:
        chosen = planned.settings
        key = (planned.features.key, chosen.source, chosen.pca_components, chosen.seed)
        groups.setdefault(key, []).append(planned)
    return list(groups.values())


@ray.remote(num_cpus=1)  # Ray gives a task one thread: clustering on more would not repeat bit for bit
def _run(task: Callable[[], T]) -> T:
    return task()


@ray.remote(num_cpus=1)  # lends its CPU to the tasks that it waits for
def _build(blocks: Sequence[FeatureBlock], group: list[PlannedDictionary], large: bool) -> int:
    folder, first = group[0].path.parent, group[0].settings
    sizes = sorted({planned.settings.size for planned in group})
    made = block_by_block(blocks, first, sizes, folder) if large else _in_memory(blocks, first, sizes)
    for planned in group:
        with_prior(made[planned.settings.size], planned.settings).save(planned.path)
    return len(group)


def _in_memory(
    blocks: Sequence[FeatureBlock], settings: DictionarySettings, sizes: Sequence[int]
) -> dict[int, ConfounderDictionary]:
    from ccim_ray.confounders import ConfounderDictionary, fit_dictionaries
    from ccim_ray.feature_blocks import read_together

    features_MD = read_together(blocks)
    if settings.source == "random":
        width = features_MD.shape[1]
        return {
            size: ConfounderDictionary.random(size, width, settings.seed, like_features_MD=features_MD)
            for size in sizes
        }
    return fit_dictionaries(features_MD, sizes, settings.seed, settings.pca_components)


def block_by_block(
    blocks: Sequence[FeatureBlock], settings: DictionarySettings, sizes: Sequence[int], folder: Path
) -> dict[int, ConfounderDictionary]:
    """Dictionaries of these sizes, in Ray tasks; ``folder`` takes the projected features meanwhile."""
    from ccim_ray.large_dictionaries import fit_large_dictionaries, random_like_large

    if settings.source == "random":
        return random_like_large(blocks, in_ray_tasks, sizes, settings.seed)
    with scratch_folder(folder) as projected:
        return fit_large_dictionaries(blocks, in_ray_tasks, projected, sizes, settings.seed, settings.pca_components)


def with_prior(dictionary: ConfounderDictionary, settings: DictionarySettings) -> ConfounderDictionary:
    """The dictionary with the prior that was asked for; a random one has the uniform prior whatever was asked."""
    if settings.source == "random" or settings.prior == "counts":
        return dictionary
    return (
        dictionary.with_shuffled_prior(settings.seed)
        if settings.prior == "shuffled"
        else dictionary.with_uniform_prior()
    )
