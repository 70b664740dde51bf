"""Which datasets can be read, by name: the four of this project, and those that other installed packages bring.

A package brings one by an entry point of the group ``ccim_ray.datasets`` whose object is a DatasetCard; its name is
what ``--dataset`` takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ccim_ray.datasets.caer_s import load_caer_s
from ccim_ray.datasets.confounded_scenes.loader import load_confounded_scenes
from ccim_ray.datasets.consistency import dataset_faults
from ccim_ray.datasets.dataset import AS_PUBLISHED, Dataset, LoadOptions
from ccim_ray.datasets.depth import with_depth_pictures
from ccim_ray.datasets.emotic import load_emotic
from ccim_ray.datasets.groupwalk import load_groupwalk
from ccim_ray.errors import RequestError
from ccim_ray.paper import DEFAULT_DICTIONARY_SIZE
from ccim_ray.plug_ins import Cards


@dataclass(frozen=True, kw_only=True)
class DatasetCard:
    """A dataset, as a plug-in describes it.

    Attributes:
        name: as given to ``--dataset``.
        load: reads the folder named by ``--data-root``; raises RequestError for what it finds wrong.
        multi_label: whether a subject may have several categories.
        dictionary_size: N unless told otherwise.
        annotates_faces: whether it says where faces are; otherwise they are looked for where a baseline reads them.
    """

    name: str
    load: Callable[[Path, LoadOptions], Dataset]
    multi_label: bool
    dictionary_size: int = 256
    annotates_faces: bool = False


DATASETS = {
    card.name: card
    for card in (
        DatasetCard(name="confounded_scenes", load=load_confounded_scenes, multi_label=False, annotates_faces=True),
        DatasetCard(
            name="emotic", load=load_emotic, multi_label=True, dictionary_size=DEFAULT_DICTIONARY_SIZE["emotic"]
        ),
        DatasetCard(
            name="caer_s",
            load=load_caer_s,
            multi_label=False,
            dictionary_size=DEFAULT_DICTIONARY_SIZE["caer_s"],
            annotates_faces=True,
        ),
        DatasetCard(
            name="groupwalk",
            load=load_groupwalk,
            multi_label=True,
            dictionary_size=DEFAULT_DICTIONARY_SIZE["groupwalk"],
        ),
    )
}

CARDS = Cards(DatasetCard, "--dataset", "ccim_ray.datasets", DATASETS)


def dataset_card(name: str) -> DatasetCard:
    """The card of the dataset called ``name``; RequestError as ``Cards.find``."""
    return CARDS.find(name)


def load_dataset(name: str, root: Path, options: LoadOptions = AS_PUBLISHED) -> Dataset:
    """Read the dataset called ``name`` from the folder ``root``, with the depth pictures that lie beside it.

    Raises:
        RequestError: unknown name, missing folder, or whatever the dataset's loader finds wrong; and where a loader of
            another package returns records that contradict themselves.
    """
    card = dataset_card(name)
    if not root.is_dir():
        raise RequestError(f"--data-root: {root} is no folder; name the folder that holds {name}")
    dataset = card.load(root, options)
    if name not in DATASETS:
        _require_sound(dataset, card)
    return with_depth_pictures(dataset)


def _require_sound(dataset: Dataset, card: DatasetCard) -> None:
    """RequestError for the first fault of what another package's loader returned."""
    where = f"--dataset {card.name}: its loader"
    if not isinstance(dataset, Dataset):
        raise RequestError(f"{where} returned an object of class {type(dataset).__name__}, not a Dataset")
    if dataset.multi_label != card.multi_label:
        # The loss is chosen by the card, before the data are read.
        raise RequestError(
            f"--dataset {card.name}: its card says multi_label={card.multi_label}, the dataset that it loads "
            f"multi_label={dataset.multi_label}; mend the package that brings it"
        )
    if dataset.name != card.name:
        raise RequestError(f"{where} returned a dataset of the name {dataset.name!r}; give both one name")
    fault = next(dataset_faults(dataset), None)
    if fault:
        raise RequestError(f"{where} returned {fault}; mend the files, or the package that reads them")
