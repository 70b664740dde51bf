"""What --plan prints: one row a stage, with what is there, what is to do, and measured times alone."""

from io import StringIO
from shutil import copytree

import pytest
from rich.console import Console

from ccim_ray.baselines.cards import CARDS
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.perception.architectures import architecture
from ccim_ray.plan import SHARD_SUBJECTS, make_plan
from ccim_ray.presets import default_experiment
from ccim_ray.rates import Rates
from ccim_ray.reports.plan_report import plan_rows, plan_table
from ccim_ray.storage import Storage, write_json
from ccim_ray.trial_folder import TrialResult

WORLD = WorldSettings(images=600)
PICTURES = 600 + 78  # the counterfactuals of test_do
SETTINGS = {
    "vanilla": {"deconfounder": "none"},
    "CCIM N=8": {"dictionary__size": 8},
    "CCIM N=9": {"dictionary__size": 9},
}


def make(storage, world=WORLD, seeds=(0, 1), **changes):
    base = default_experiment("confounded_scenes", "smoke", world).with_changes(**changes)
    chosen = {name: base.with_changes(**change) for name, change in SETTINGS.items()}
    return make_plan([*chosen.items()], seeds, storage, None)


def printed(plan, storage):
    text = StringIO()
    Console(width=160, file=text).print(plan_table(plan, storage))
    return text.getvalue()


def by_stage(plan):
    return {row.stage: row for row in plan_rows(plan)}


@pytest.fixture
def storage(tmp_path):
    return Storage(tmp_path / "runs")


def test_everything_is_still_to_do(storage):
    plan = make(storage)
    stages = [row.stage.split()[0] for row in plan_rows(plan)]
    assert stages == ["start", "render", "extract", "extract", "extract", "cluster", "train"]
    rows = by_stage(plan)
    assert (rows["render"].there, rows["render"].to_do) == ("0 pictures", str(PICTURES))
    assert all(row.to_do == str(PICTURES) for name, row in rows.items() if name.startswith("extract"))
    assert (rows["cluster"].there, rows["cluster"].to_do) == ("0 dictionaries", "2 (N = 8, 9)")
    assert (rows["train"].there, rows["train"].to_do) == ("0 trials", "6")
    assert rows["train"].units == 6 * PICTURES * plan.trials[0].trial.experiment.epochs
    width = architecture("thin_resnet").feature_dim
    assert rows["extract body (thin_resnet/bodies)"].disk == PICTURES * width * 4


def test_what_is_there_is_counted(storage):
    plan = make(storage)
    body = next(view for view in plan.views if view.request.view == "body")
    body.folder.mkdir(parents=True)
    for number in (0, 4):  # the last shard is not full
        (body.folder / f"shard-{number:05d}.parquet").touch()
    plan.dictionaries[1].path.parent.mkdir(parents=True)
    plan.dictionaries[1].path.touch()
    folders = [storage.trial(planned.trial.signature) for planned in plan.trials]
    write_json(folders[0] / "result.json", TrialResult("done").as_dict())
    write_json(folders[1] / "result.json", TrialResult("diverged", diverged_at_step=3).as_dict())
    write_json(folders[2] / "failure.json", {"reason": "killed", "attempts": 3})
    folders[3].mkdir()
    (folders[3] / "checkpoint.pt").touch()
    rows = by_stage(make(storage))
    assert rows["extract body (thin_resnet/bodies)"].there == f"{PICTURES - 4 * SHARD_SUBJECTS} subjects"
    assert rows["extract body (thin_resnet/bodies)"].to_do == str(4 * SHARD_SUBJECTS)
    assert (rows["cluster"].there, rows["cluster"].to_do) == ("1 dictionaries", "1 (N = 8)")
    assert rows["train"].there == "1 done, 1 diverged"
    assert rows["train"].to_do == "4 (1 failed, 1 started)"


def test_a_complete_cache_leaves_nothing_to_do(storage):
    plan = make(storage)
    for view in plan.views:
        view.folder.mkdir(parents=True)
        for number in range(-(-PICTURES // SHARD_SUBJECTS)):
            (view.folder / f"shard-{number:05d}{view.request.suffix}").touch()
    extract = [row for row in plan_rows(plan) if row.stage.startswith("extract")]
    assert all((row.there, row.to_do, row.units, row.disk) == (f"{PICTURES} subjects", "0", 0, 0) for row in extract)


def test_a_world_on_disk_is_not_rendered_again(storage, small_world):
    plan = make(storage, WorldSettings(like="caer_s", images=60, image_size=64))
    assert by_stage(plan)["render"].to_do == "68"
    copytree(small_world, plan.source.root)
    assert by_stage(plan)["render"].to_do == "0"
    (plan.source.root / "world.json").rename(plan.source.root / "world.unfinished.json")
    assert by_stage(plan)["render"].to_do == "68"


def test_without_ccim_there_is_no_row_for_dictionaries(storage):
    base = default_experiment("confounded_scenes", "smoke", WORLD).with_changes(deconfounder="none")
    plan = make_plan([("vanilla", base)], (0,), storage, None)
    assert [row.stage.split()[0] for row in plan_rows(plan)] == ["start", "render", "extract", "extract", "train"]


def test_the_table_shows_every_row_and_unknown_times_as_unknown(storage):
    text = printed(make(storage), storage)
    assert str(storage.root) in text
    for stage in ("render", "extract context", "extract masked_context", "cluster", "train", "all"):
        assert stage in text
    assert "2 (N = 8, 9)" in text
    assert not storage.root.exists()


def test_times_are_those_that_this_storage_measured(storage):
    rates = Rates(storage.rates)
    rates.record("start_up", 1, 7)
    rates.record("render", 100, 1)
    rates.record("extract/thin_resnet/features", 300, 2)
    rates.record("cluster", 17, 3)
    rates.record("train/emot_net/head", 540, 1)
    plan = make(storage, epochs=3)
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed(plan, storage).splitlines()]
    times = {row[0]: row[3] for row in cells if row}
    assert (times["render"], times["cluster"], times["train"], times["all"]) == ("7 s", "3 s", "23 s", "53 s")
    assert {time for stage, time in times.items() if stage.startswith("extract")} == {"5 s"}
    assert "estimates by speeds of this storage" in printed(plan, storage)


@pytest.mark.parametrize("baseline", CARDS)
def test_the_time_of_each_of_our_baselines_is_estimated_from_the_first_run_on(baseline, storage):
    base = default_experiment("confounded_scenes", "smoke", WORLD, baseline).with_changes(dictionary__size=8)
    text = printed(make_plan([("CCIM", base)], (0,), storage, None), storage)
    assert text.count("?") == 1  # in the legend
    assert "estimates by speeds measured on two CPU cores, no GPU" in text
