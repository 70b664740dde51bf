"""What --plan says of where trials run: what each takes, hours by speeds of that very device alone, and the cost."""

import pytest

from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.errors import RequestError
from ccim_ray.plan import make_plan
from ccim_ray.presets import default_experiment
from ccim_ray.rates import Rates, rate_of_step
from ccim_ray.reports.placement_report import placement_lines, placements
from ccim_ray.resources import ClusterResources, TrialResources
from ccim_ray.storage import Storage, write_json
from ccim_ray.trial_folder import TrialResult

WORLD = WorldSettings(images=600)
PICTURES = 600 + 78  # the counterfactuals of test_do
LAPTOP = ClusterResources(2, 0)
GPU_NODE = ClusterResources(16, 2, "H100")


@pytest.fixture
def storage(tmp_path):
    return Storage(tmp_path / "runs")


def make(storage, *baselines, **changes):
    settings = []
    for baseline in baselines or ("emot_net",):
        base = default_experiment("confounded_scenes", "smoke", WORLD, baseline, changes.get("trainable"))
        settings.append(("vanilla", base.with_changes(**{"deconfounder": "none", "epochs": 3, **changes})))
    return make_plan(settings, (0, 1, 2), storage, None)


def lines(plan, storage, resources, cluster, price=None):
    return placement_lines(placements(plan, storage, resources, cluster), cluster, price)


def test_on_a_laptop_a_trial_takes_one_cpu(storage):
    plan = make(storage)
    Rates(storage.rates).record("step/emot_net/head/CPU", 600, 4)
    told = lines(plan, storage, TrialResources(), LAPTOP, 0.5)
    hours = 3 * 3 * PICTURES / 150 / 3600
    assert told[0] == "Training on 2 CPUs, no GPU:"
    assert told[1] == f"  emot_net: 3 trials of 1 CPU, 2 at a time; {hours:.2g} CPU-hours"
    assert told[2].startswith(f"Cost of training: {hours * 0.5:.2f}, at 0.5 for an hour of one CPU;")


def test_gpu_hours_are_those_of_a_step_measured_on_that_kind_and_share(storage):
    plan, half = make(storage), TrialResources(gpus_per_worker=0.5)
    rates = Rates(storage.rates)
    for device in ("CPU", "H100 x 1", "A100 x 0.5"):  # none of them is half an H100
        rates.record(f"step/emot_net/head/{device}", 600, 4)
    told = lines(plan, storage, half, GPU_NODE, 2.5)
    assert told[1].startswith("  emot_net: 3 trials of 1 CPU and 0.5 GPU, 3 at a time; hours not known")
    assert "H100 x 0.5" in told[1]
    assert told[2].startswith("Cost: not known, as the GPU-hours are not")

    rates.record(rate_of_step(plan.trials[0].trial.experiment, half.device(GPU_NODE)), 60, 3600)
    (placement,) = placements(plan, storage, half, GPU_NODE)
    hours = 3 * 3 * PICTURES / 60
    assert placement.cpu_hours == pytest.approx(hours)
    assert placement.gpu_hours == pytest.approx(hours / 2)
    told = lines(plan, storage, half, GPU_NODE, 2.5)
    assert told[2].startswith(f"Cost of training: {hours / 2 * 2.5:.2f}, at 2.5 for an hour of one GPU;")


def test_each_baseline_has_its_line_and_what_is_done_none(storage):
    plan = make(storage, "emot_net", "caer_net")
    for planned in plan.trials[:4]:
        write_json(storage.trial(planned.trial.signature) / "result.json", TrialResult("done").as_dict())
    told = lines(make(storage, "emot_net", "caer_net"), storage, TrialResources(), LAPTOP)
    assert [line.split(";")[0] for line in told[1:]] == ["  caer_net: 2 trials of 1 CPU, 2 at a time"]
    assert placement_lines([], LAPTOP, 1.0) == []


def test_a_trial_of_several_workers_takes_as_many_of_each(storage):
    plan = make(storage, trainable="all", workers=2)
    told = lines(plan, storage, TrialResources(), GPU_NODE)
    assert told[1].startswith("  emot_net: 3 trials of 2 CPUs and 2 GPUs, 1 at a time; hours not known")


def test_a_trial_that_fits_nowhere_is_refused(storage):
    with pytest.raises(RequestError, match="asks for 3 GPUs"):
        placements(make(storage), storage, TrialResources(gpus_per_worker=3), GPU_NODE)
