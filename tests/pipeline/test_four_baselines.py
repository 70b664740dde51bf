"""All four baselines from rendered pictures to results, as heads and end to end, and one of them killed on the way."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file as load_numpy
from safetensors.torch import load_file

from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.journal import read_journal
from ccim_ray.perception.weights import load_backbone
from ccim_ray.plan import Plan
from ccim_ray.presets import default_experiment
from ccim_ray.resources import TrialResources
from ccim_ray.space import Space
from ccim_ray.storage import Storage
from ccim_ray.sweep_request import SweepRequest
from ccim_ray.trained_model import load_trained
from ccim_ray.trial import run_trial, threads_of_a_trial
from ccim_ray.trial_folder import read_result

pytestmark = pytest.mark.slow

WORLD = WorldSettings(images=120, image_size=64)
BASELINES = ("emot_net", "gcn_cnn", "caer_net", "emoticon")
WITH_CCIM = Space(
    name="with_ccim",
    question="Does every baseline train?",
    changes={"CCIM N=8": {"dictionary__size": 8}},
    reference="CCIM N=8",
    axis={},
    axis_label="",
)


def request_of(root: Path, baselines: tuple[str, ...], trainable: str, **changes: object) -> SweepRequest:
    bases = (default_experiment("confounded_scenes", "smoke", WORLD, baseline, trainable) for baseline in baselines)
    return SweepRequest(
        space=WITH_CCIM,
        bases=tuple(base.with_changes(batch_size=16, **changes) for base in bases),
        seeds=(0,),
        storage=Storage.open(str(root)),
        tracking_uri=f"sqlite:///{root}/mlflow.db",
        resources=TrialResources(),
    )


def run_whole(request: SweepRequest) -> Plan:
    """The plan after its sweep, every trial of which must be done."""
    from ccim_ray.pipeline.sweep import run_sweep

    assert run_sweep(request) == 0
    plan = request.plan()
    assert [planned.state for planned in plan.trials] == ["done"] * len(request.bases)
    return plan


def assert_is_trained(folder: Path, epochs: int) -> None:
    """It ended after so many epochs, with an accuracy for every split."""
    result = read_result(folder)
    assert result is not None
    assert result.epochs == epochs
    assert {f"{split}/accuracy" for split in ("val", "test_id", "test_do", "test_anti")} <= set(result.metrics)
    assert all(0 <= value <= 1 for name, value in result.metrics.items() if name.endswith("/accuracy"))


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory, cluster: object) -> Plan:
    return run_whole(request_of(tmp_path_factory.mktemp("heads"), BASELINES, "head", epochs=3))


def test_every_head_is_trained_on_extracted_views(heads: Plan) -> None:
    for planned in heads.trials:
        assert_is_trained(Path(planned.trial.paths.folder), epochs=3)
    titles = {view.request.title for view in heads.views}
    assert {"keypoints", "regions", "depth (thin_resnet/objects)", "face (thin_resnet/bodies)"} <= titles
    assert all(list(view.folder.glob("shard-*")) for view in heads.views)


def test_every_baseline_has_its_rows_in_the_results(heads: Plan) -> None:
    (path,) = heads.subjects.parents[2].glob("sweeps/*/results.csv")
    with path.open() as file:
        assert {row["baseline"].partition(" ")[0] for row in csv.DictReader(file)} >= set(BASELINES)


def test_every_logged_model_gives_the_scores_of_its_trial(heads: Plan) -> None:
    for planned in heads.trials:
        folder = Path(planned.trial.paths.folder)
        dataset = heads.source.dataset
        subjects = [subject for subject in dataset.subjects if subject.split == "test_do"]
        expected_SK = torch.from_numpy(load_numpy(folder / "scores.safetensors")["test_do"]).softmax(1)
        scores_SK, reasons = load_trained(folder, root=dataset.root).score(subjects)
        assert set(reasons) == {None}
        np.testing.assert_allclose(scores_SK, expected_SK, atol=1e-5, err_msg=planned.baseline)


class Killed(Exception):
    pass


@pytest.mark.parametrize("baseline", ["gcn_cnn", "emoticon"])
def test_a_killed_head_goes_on_and_ends_with_the_same_bits(heads: Plan, tmp_path: Path, baseline: str) -> None:
    (planned,) = (planned for planned in heads.trials if planned.baseline == baseline)
    straight = Path(planned.trial.paths.folder)
    trial = replace(planned.trial, paths=replace(planned.trial.paths, folder=str(tmp_path)))

    def kill(epoch: int, metrics: object) -> None:
        if epoch == 1:
            raise Killed

    threads_of_a_trial()
    with pytest.raises(Killed):
        run_trial(trial, on_epoch=kill)
    assert read_result(tmp_path) is None
    resumed_at: list[int] = []
    run_trial(trial, on_epoch=lambda epoch, metrics: resumed_at.append(epoch))
    assert resumed_at == [2]
    for name in ("best.safetensors", "scores.safetensors"):
        assert (tmp_path / name).read_bytes() == (straight / name).read_bytes(), name
    journals = [[line.metrics for line in read_journal(folder / "journal.jsonl")] for folder in (tmp_path, straight)]
    assert journals[0] == journals[1]


@pytest.mark.parametrize(
    ("baselines", "workers"), [(("caer_net", "emoticon"), 2), (("emot_net", "gcn_cnn"), 1)], ids=["DDP", "one process"]
)
def test_every_baseline_trains_end_to_end(
    heads: Plan, tmp_path: Path, baselines: tuple[str, ...], workers: int
) -> None:
    shutil.copytree(heads.source.root, tmp_path / "worlds" / heads.source.root.name)  # the same world: not drawn again
    plan = run_whole(request_of(tmp_path, baselines, "all", epochs=1, workers=workers))
    for planned in plan.trials:
        folder = Path(planned.trial.paths.folder)
        assert_is_trained(folder, epochs=1)
        trained = load_file(folder / "best.safetensors")
        for view, trunk in planned.trial.experiment.trunks.items():
            if trunk.weights == "random":
                continue
            for name, before in load_backbone(trunk.arch, trunk.weights).named_parameters():
                assert not torch.equal(trained[f"trunks.{view}.{name}"], before), f"{view}: {name} was not trained"
