"""The plans for the paper: every number that it prints of a model of ours has a trial, with the settings it means."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from importlib import util
from importlib.resources import files

import pytest
from job_runs import ROOT

from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.datasets.confounded_scenes.world import write_world
from ccim_ray.perception.weight_files import available_weights
from ccim_ray.plan import make_plan
from ccim_ray.presets import default_experiment, preset
from ccim_ray.storage import Storage
from search_spaces.ablations import ablations_space
from search_spaces.baselines import baselines_space
from search_spaces.dict_size import dict_size_space

DATASETS = {"EMOTIC": "emotic", "CAER-S": "caer_s", "GroupWalk": "groupwalk"}
METHODS = {"EMOT-Net": "emot_net", "GCN-CNN": "gcn_cnn", "CAER-Net": "caer_net", "EmotiCon": "emoticon"}
WHOLE = ("dot_product", True, True, "clusters", "resnet152", "places365", "subject")
TABLE_4 = {
    "default": WHOLE,
    "random_dictionary": (*WHOLE[:3], "random", *WHOLE[4:]),
    "imagenet_pretraining": (*WHOLE[:5], "imagenet", "subject"),
    "resnet50_backbone": (*WHOLE[:4], "resnet50", *WHOLE[5:]),
    "vgg16_backbone": (*WHOLE[:4], "vgg16", *WHOLE[5:]),
    "additive_attention": ("additive", *WHOLE[1:]),
    "without_lambda": (WHOLE[0], False, *WHOLE[2:]),
    "without_prior": (*WHOLE[:2], False, *WHOLE[3:]),
    "without_masking": (*WHOLE[:6], "none"),
}
"""What a row of Table 4 changes, typed here once more."""
LABELS = {
    ("0", "default"): "vanilla",
    ("1", "default"): "CCIM",
    ("1", "random_dictionary"): "random Z",
    ("1", "imagenet_pretraining"): "ImageNet Z",
    ("1", "resnet50_backbone"): "ResNet-50",
    ("1", "vgg16_backbone"): "VGG-16",
    ("1", "additive_attention"): "additive attention",
    ("1", "without_lambda"): "w/o lambda",
    ("1", "without_prior"): "w/o P(z)",
    ("1", "without_masking"): "w/o masking",
}
"""with_ccim and row -> the setting's name in tables."""


def rows_of_ours():
    with (files("ccim_ray.reports") / "published.csv").open() as stream:
        return [row for row in csv.DictReader(stream) if row["method"] in METHODS]


def job_of(name):
    """A job's script as a module."""
    spec = util.spec_from_file_location(f"job_{name}", ROOT / "jobs" / f"{name}.py")
    sys.modules[spec.name] = module = util.module_from_spec(spec)  # where dataclass looks its annotations up
    spec.loader.exec_module(module)
    return module


def planned(dataset):
    """(space, setting, base, experiment) of all that the jobs of Tables 1 to 4 train on the dataset by default."""
    found = []
    for flags, space_of in (
        (job_of("compare_baselines").Flags, lambda base: baselines_space()),
        (job_of("run_ablations").Flags, lambda base: ablations_space(base.backbone)),
    ):
        for base in flags(dataset=dataset, preset="paper").experiments():
            space = space_of(base)
            found += [(space, setting, base, experiment) for setting, experiment in space.settings(base).items()]
    return found


def is_of(experiment, row):
    if (experiment.dataset, experiment.baseline) != (DATASETS[row["dataset"]], METHODS[row["method"]]):
        return False
    if row["with_ccim"] == "0":
        return experiment.deconfounder == "none"
    backbone, chosen = experiment.backbone, experiment.ccim
    found = (chosen.attention, chosen.use_lambda, chosen.use_prior, experiment.dictionary.source)
    found += (backbone.arch, backbone.weights, experiment.masking)
    default_size = experiment.dictionary.size == {"CAER-S": 128}.get(row["dataset"], 256)
    with_ccim = experiment.deconfounder == "ccim" and default_size and chosen.context_weights == "paper"
    return with_ccim and experiment.dictionary.prior == "counts" and found == TABLE_4[row["setting"]]


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_number_of_a_model_of_ours_has_its_trial_and_stands_beside_it(dataset):
    rows = [row for row in rows_of_ours() if row["dataset"] == dataset]
    experiments = planned(DATASETS[dataset])
    for row in rows:
        of_row = [entry for entry in experiments if is_of(entry[3], row)]
        assert of_row, row
        metric = f"test/{'AP/' + row['category'] if row['category'] else row['metric']}"
        for space, setting, base, experiment in of_row:
            published = space.published(base, "accuracy" if dataset == "CAER-S" else "mAP")
            assert published[setting, metric] == pytest.approx(float(row["value_percent"]) / 100)
            assert experiment.trainable == "all"


def test_the_rows_looked_at_are_those_of_four_tables_and_fig_6_has_none():
    assert Counter(row["table"] for row in rows_of_ours()) == {"table1": 216, "table2": 40, "table3": 8, "table4": 54}
    assert {row["setting"] for row in rows_of_ours()} == set(TABLE_4)


@pytest.mark.parametrize("dataset", DATASETS.values())
def test_fig_6_is_planned_at_its_five_sizes(dataset):
    base = default_experiment(dataset, "paper", None)
    sizes = [
        experiment.dictionary.size
        for experiment in dict_size_space(preset("paper").sizes).settings(base).values()
        if experiment.deconfounder == "ccim"
    ]
    assert sizes == [64, 128, 256, 512, 1024]


@pytest.mark.parametrize("dataset", DATASETS.values())
def test_only_numbers_of_the_csv_stand_beside_a_setting(dataset):
    base = default_experiment(dataset, "paper", None)
    space = ablations_space(base.backbone)
    metric = "accuracy" if dataset == "caer_s" else "mAP"
    with_number = {setting for setting, name in space.published(base, metric) if name == f"test/{metric}"}
    controls = {"W_h alone", "renormalised", "shuffled P(z)", "uniform P(z)"}
    assert set(space.changes) == with_number | controls
    assert not with_number & controls


def test_every_control_can_stand_beside_ccim_for_every_baseline():
    controls = {"W_h alone", "w/o lambda", "random Z", "renormalised", "shuffled P(z)", "uniform P(z)"}
    assert set(baselines_space(all_controls=True).changes) == {"vanilla", "CCIM"} | controls
    for base in job_of("compare_baselines").Flags(dataset="emotic", preset="paper").experiments():
        settings = baselines_space(all_controls=True).settings(base)
        ablations = ablations_space(base.backbone).settings(base)
        assert all(settings[name] == ablations[name] for name in controls)
        assert len({repr(experiment) for experiment in settings.values()}) == 8


@pytest.mark.parametrize("like", DATASETS.values())
def test_on_the_embedded_world_only_what_has_a_stand_in_is_planned(like, tmp_path):
    base = default_experiment("confounded_scenes", "smoke", WorldSettings(like=like, images=600))
    space = ablations_space(base.backbone)
    of_paper = ablations_space(default_experiment(like, "paper", None).backbone)
    assert set(of_paper.changes) - set(space.changes) == {"ResNet-50", "VGG-16"}
    settings = space.settings(base)
    assert settings["ImageNet Z"].backbone.weights == "objects"
    for experiment in settings.values():
        assert experiment.backbone.weights in available_weights(experiment.backbone.arch)
    plan = make_plan([*settings.items()], (0,), Storage(tmp_path), None)
    assert len({planned.trial.signature for planned in plan.trials}) == len(settings)
    # CCIM, random, objects, unmasked, shuffled, uniform; the other ablations share CCIM's dictionary.
    assert len(plan.dictionaries) == 6
    assert space.published(base, "accuracy") == {}


def test_stand_ins_are_used_for_folders_in_a_real_datasets_format():
    base = default_experiment("caer_s", "quick", None, stand_ins=True)
    assert "ResNet-50" not in ablations_space(base.backbone).changes


@pytest.mark.slow
@pytest.mark.parametrize("dataset", DATASETS)
def test_the_jobs_plan_the_paper_on_files_of_the_real_format_before_any_weight_is_there(
    dataset, tmp_path, monkeypatch, capsys
):
    """What ``--plan --dataset emotic --preset paper`` prints, beside published.csv: the two lists are one."""
    name, root = DATASETS[dataset], tmp_path / "data"
    write_world(WorldSettings(like=name, images=500, image_size=64), root)
    monkeypatch.setenv("CCIM_RAY_WEIGHTS", str(tmp_path / "none"))
    monkeypatch.delenv("CCIM_RAY_STORAGE", raising=False)
    storage = tmp_path / "runs"
    shared = ["--plan", "--dataset", name, "--data-root", str(root), "--preset", "paper", "--storage", str(storage)]
    found = Counter()
    for job in ("compare_baselines", "run_ablations"):
        monkeypatch.setattr(sys, "argv", [f"jobs/{job}.py", *shared])
        assert job_of(job).main() == 0
        printed = capsys.readouterr().out
        assert "Still missing in" in printed
        assert "resnet152_places365.safetensors" in printed
        for line in printed.splitlines():
            baseline, separator, settings = line.partition(", seeds 0 1 2 3 4: ")
            for text in settings.split(", ") if separator else ():
                setting, _, number = text.removesuffix(" in the paper)").partition(" (")
                if number:
                    found[baseline.removesuffix(" (approximate)"), setting, number] += 1
    wanted = {
        (METHODS[row["method"]], LABELS[row["with_ccim"], row["setting"]], f"{float(row['value_percent']):.2f}")
        for row in rows_of_ours()
        if row["dataset"] == dataset and not row["category"]
    }
    assert set(found) == wanted
    assert not storage.exists()
