"""Views of subjects over Ray Data: resumed shard by shard, bad images counted and named."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.datasets.confounded_scenes.world import write_world
from ccim_ray.datasets.dataset import Defects
from ccim_ray.datasets.registry import load_dataset
from ccim_ray.errors import RequestError
from ccim_ray.perception.architectures import ViewRequest
from ccim_ray.perception.views import ViewMaker
from ccim_ray.pipeline.extraction import add_unusable, extract_views, missing_shards, report_unusable, shard_path
from ccim_ray.plan import PlannedView
from ccim_ray.prepared import read_shards
from ccim_ray.rates import Rates

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    write_world(WorldSettings(images=400, seed=3), root)
    return root


def planned(folder: Path) -> list[PlannedView]:
    requests = [
        ViewRequest("masked_context", "thin_resnet", "scenes"),
        ViewRequest("body", "thin_resnet", None),
    ]
    return [PlannedView(request, str(k), folder / str(k)) for k, request in enumerate(requests)]


def test_extraction_equals_the_plain_loop_and_resumes(world, tmp_path, cluster) -> None:
    import torch

    dataset = load_dataset("confounded_scenes", world)
    views, rates = planned(tmp_path), Rates(tmp_path / "rates.json")
    extract_views(dataset, views, cluster, None, rates)
    ids = tuple(subject.subject_id for subject in dataset.subjects)
    features, crops = (read_shards(view.folder, ids) for view in views)
    assert features.row_shape == (512,)
    assert features.shards[0].dtype == np.float32
    assert crops.row_shape == (64, 64, 3)

    torch.set_num_threads(1)
    maker = ViewMaker(world, [view.request for view in views], None, torch.device("cpu"))
    (plain_features, plain_crops), reasons = maker.make(dataset.subjects[:128], [0, 1])
    assert reasons == [[None] * 128] * 2
    first = np.arange(128)
    np.testing.assert_array_equal(features.take(first), plain_features)
    np.testing.assert_array_equal(crops.take(first), plain_crops)

    paths = sorted(tmp_path.glob("*/shard-*"))
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}
    deleted = random.Random(0).sample(paths, len(paths) // 2)
    for path in deleted:
        path.unlink()
    assert sum(len(lacking) for _, lacking in missing_shards(views, len(ids))) == len(deleted)
    extract_views(dataset, views, cluster, None, rates)
    for path, (written, content) in before.items():
        assert path.read_bytes() == content
        assert (path.stat().st_mtime_ns != written) == (path in deleted)


def test_bad_images_are_counted_named_and_grouped(world, tmp_path, cluster, capsys) -> None:
    import shutil

    root = tmp_path / "data"
    shutil.copytree(world, root)
    dataset = load_dataset("confounded_scenes", root)
    train = [subject for subject in dataset.subjects if subject.split == "train"]
    truncated, missing, text = (root / subject.image for subject in train[:3])
    truncated.write_bytes(truncated.read_bytes()[:2000])
    missing.unlink()
    text.write_text("this is not an image")
    views = planned(tmp_path / "views")
    extract_views(dataset, views, cluster, None, Rates(tmp_path / "rates.json"))
    ids = tuple(subject.subject_id for subject in dataset.subjects)
    found = read_shards(views[0].folder, ids)
    bad = [subject.subject_id for subject, reason in zip(dataset.subjects, found.reasons, strict=True) if reason]
    assert bad == [subject.subject_id for subject in train[:3]]
    groups = report_unusable(dataset, found.reasons)
    assert sum(groups.values()) == 3
    listed = Defects()
    add_unusable(listed, dataset, found.reasons)
    assert listed.found == {
        "truncated or damaged image": [(train[0].image, "train")],
        "missing image": [(train[1].image, "train")],
        "not an image": [(train[2].image, "train")],
    }
    printed = capsys.readouterr().out
    for subject in train[:3]:
        assert subject.image in printed
    with pytest.raises(RequestError, match="no usable image in the split 'val'"):
        report_unusable(dataset, [None if s.split == "train" else "broken" for s in dataset.subjects])
    assert not shard_path(views[0], 99).exists()
