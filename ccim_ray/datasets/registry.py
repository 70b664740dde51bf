"""Which datasets can be read, by name. A new one is one line here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ccim_ray.datasets.caer_s import load_caer_s
from ccim_ray.datasets.confounded_scenes.loader import load_confounded_scenes
from ccim_ray.datasets.dataset import AS_PUBLISHED, Dataset, LoadOptions
from ccim_ray.datasets.emotic import load_emotic
from ccim_ray.datasets.groupwalk import load_groupwalk
from ccim_ray.errors import RequestError

LOADERS: dict[str, Callable[[Path, LoadOptions], Dataset]] = {
    "confounded_scenes": load_confounded_scenes,
    "emotic": load_emotic,
    "caer_s": load_caer_s,
    "groupwalk": load_groupwalk,
}


def load_dataset(name: str, root: Path, options: LoadOptions = AS_PUBLISHED) -> Dataset:
    """Read the dataset called ``name`` from the folder ``root``.

    Raises:
        RequestError: unknown name, missing folder, or whatever the dataset's loader finds wrong.
    """
    if name not in LOADERS:
        raise RequestError(f"--dataset: unknown dataset {name!r}; known are {', '.join(LOADERS)}")
    if not root.is_dir():
        raise RequestError(f"--data-root: {root} is no folder; name the folder that holds {name}")
    return LOADERS[name](root, options)
