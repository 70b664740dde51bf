"""Which datasets can be read, by name: the four of this project, and those that other installed packages bring.

A package brings one by an entry point of the group ``ccim_ray.datasets`` whose object is a DatasetCard; its name is
what ``--dataset`` takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from ccim_ray.datasets.caer_s import load_caer_s
from ccim_ray.datasets.confounded_scenes.loader import load_confounded_scenes
from ccim_ray.datasets.dataset import AS_PUBLISHED, Dataset, LoadOptions
from ccim_ray.datasets.emotic import load_emotic
from ccim_ray.datasets.groupwalk import load_groupwalk
from ccim_ray.errors import RequestError
from ccim_ray.paper import DEFAULT_DICTIONARY_SIZE

ENTRY_POINT_GROUP = "ccim_ray.datasets"
DEPTH_FOLDER = "depth"
"""Under the data root: a depth picture for ``<image>`` is ``depth/<image>.png``, light for near."""


@dataclass(frozen=True, kw_only=True)
class DatasetCard:
    """A dataset, as a plug-in describes it.

    Attributes:
        name: as given to ``--dataset``.
        load: reads the folder named by ``--data-root``; raises RequestError for what it finds wrong.
        multi_label: whether a subject may have several categories.
        dictionary_size: N unless told otherwise.
    """

    name: str
    load: Callable[[Path, LoadOptions], Dataset]
    multi_label: bool
    dictionary_size: int = 256


DATASETS = {
    card.name: card
    for card in (
        DatasetCard(name="confounded_scenes", load=load_confounded_scenes, multi_label=False),
        DatasetCard(
            name="emotic", load=load_emotic, multi_label=True, dictionary_size=DEFAULT_DICTIONARY_SIZE["emotic"]
        ),
        DatasetCard(
            name="caer_s", load=load_caer_s, multi_label=False, dictionary_size=DEFAULT_DICTIONARY_SIZE["caer_s"]
        ),
        DatasetCard(
            name="groupwalk",
            load=load_groupwalk,
            multi_label=True,
            dictionary_size=DEFAULT_DICTIONARY_SIZE["groupwalk"],
        ),
    )
}


def dataset_card(name: str) -> DatasetCard:
    """The card of the dataset called ``name``.

    Raises RequestError, naming the known ones, where there is none, or where a package's entry point is wrong.
    """
    if name in DATASETS:
        return DATASETS[name]
    plugged_in = _plugged_in()
    if name not in plugged_in:
        known = ", ".join((*DATASETS, *sorted(plugged_in)))
        raise RequestError(f"--dataset {name}: there is no such dataset; choose one of {known}")
    found = plugged_in[name]
    try:
        card = found.load()
    except (ImportError, AttributeError) as error:
        raise RequestError(f"the entry point {name} = {found.value} cannot be loaded ({error})") from error
    if not isinstance(card, DatasetCard) or card.name != name:
        raise RequestError(f"--dataset {name}: the entry point {found.value} is no DatasetCard of that name; mend it")
    return card


def load_dataset(name: str, root: Path, options: LoadOptions = AS_PUBLISHED) -> Dataset:
    """Read the dataset called ``name`` from the folder ``root``, with the depth pictures that lie beside it.

    Raises:
        RequestError: unknown name, missing folder, or whatever the dataset's loader finds wrong.
    """
    card = dataset_card(name)
    if not root.is_dir():
        raise RequestError(f"--data-root: {root} is no folder; name the folder that holds {name}")
    return _with_depth_pictures(card.load(root, options))


def _with_depth_pictures(dataset: Dataset) -> Dataset:
    """Name the depth picture of every subject whose loader knows none; a missing one is counted."""
    folder = dataset.root / DEPTH_FOLDER
    if not folder.is_dir() or any(subject.depth is not None for subject in dataset.subjects):
        return dataset
    subjects = []
    for subject in dataset.subjects:
        depth = f"{DEPTH_FOLDER}/{subject.image}.png"
        if (dataset.root / depth).is_file():
            subjects.append(replace(subject, depth=depth))
        else:
            dataset.defects.add("image without a depth picture", subject.image)
            subjects.append(subject)
    return replace(dataset, subjects=tuple(subjects))


def _plugged_in() -> dict[str, EntryPoint]:
    return {found.name: found for found in entry_points(group=ENTRY_POINT_GROUP) if found.name not in DATASETS}
