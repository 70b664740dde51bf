import os
from pathlib import Path

from my_models.dataset import load
from my_models.model import MY_MODEL

from ccim_ray.datasets.dataset import LoadOptions
from ccim_ray.testing import check_baseline, check_dataset


def test_my_model_conforms() -> None:
    check_baseline(MY_MODEL)
    check_baseline(MY_MODEL, {"width": 8})


def test_my_dataset_conforms() -> None:
    check_dataset(load(Path(os.environ["CCIM_MY_DATA"]), LoadOptions()))
