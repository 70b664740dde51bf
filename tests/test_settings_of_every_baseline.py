"""Every baseline end to end: each parameter is trained, and precision and memory order change the last digits alone."""

import numpy as np
import pytest
import torch

from ccim_ray.baselines.registry import inputs_of
from ccim_ray.confounders import ConfounderDictionary
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.journal import read_journal
from ccim_ray.perception.architectures import architecture, is_geometry
from ccim_ray.perception.geometry import SHAPES
from ccim_ray.prepared import SubjectIndex, TrialInputs, ViewRows
from ccim_ray.presets import default_experiment
from ccim_ray.training import train
from ccim_ray.trial import build_recogniser

SPLITS = {"train": 12, "val": 4}
BASELINES = {
    "emot_net": ("emot_net", {}),
    "gcn_cnn": ("gcn_cnn", {}),
    "caer_net": ("caer_net", {}),
    "emoticon with depth": ("emoticon", {"sociodynamic": "depth"}),
    "emoticon with agents": ("emoticon", {"sociodynamic": "agents"}),
}
every_baseline = pytest.mark.parametrize("name", BASELINES)


def make_experiment(name, **changes):
    baseline, options = BASELINES[name]
    base = default_experiment("confounded_scenes", "smoke", WorldSettings(images=60), baseline, "all", options)
    small = {"batch_size": SPLITS["train"], "epochs": 1, "schedule": "constant", "learning_rate": 1e-4}
    return base.with_changes(**(small | changes))


def make_inputs(experiment):
    """Noise of another brightness for each of three categories; boxes of the left half and below the middle."""
    rng = np.random.default_rng(3)
    splits = np.repeat(list(SPLITS), list(SPLITS.values()))
    category = np.arange(len(splits)) % 3
    views = {}
    for item in inputs_of(experiment.baseline, experiment.baseline_options):
        if is_geometry(item.view):
            rows = rng.uniform(0.1, 0.5, (len(splits), *SHAPES[item.view])).astype(np.float32)
            if item.view in ("agents", "regions"):
                rows[..., 2:4] += 0.45
        else:
            side = architecture(experiment.trunks[item.view].arch).input_size
            noise = rng.integers(0, 120, (len(splits), side, side, 3))
            rows = (noise + 60 * category[:, None, None, None]).astype(np.uint8)
        views[str(item.view)] = ViewRows((rows,), (None,) * len(splits))
    ids = tuple(f"s{number}" for number in range(len(splits)))
    index = SubjectIndex(ids, splits, np.eye(3, dtype=np.float32)[category], ("A", "B", "C"), False)
    return TrialInputs(index, views, ConfounderDictionary.random(6, 512, seed=1))


def trained(folder, name, **changes):
    """The model after one step, and the loss of that step: later ones differ by processor, as rounding grows."""
    experiment = make_experiment(name, **changes)
    inputs = make_inputs(experiment)
    built = []

    def build():
        built.append(build_recogniser(experiment, 3, inputs.dictionary))
        return built[0]

    assert train(experiment, inputs, build, folder).status == "done"
    (line,) = read_journal(folder / "journal.jsonl")
    return built[0], line.metrics["train/loss"]


@every_baseline
def test_settings_of_speed_change_little_and_no_parameter_is_left_out(name, tmp_path):
    model, loss = trained(tmp_path / "default", name)
    without = [key for key, parameter in model.named_parameters() if parameter.grad is None]
    assert without == []
    _, in_bfloat16 = trained(tmp_path / "bfloat16", name, precision="bfloat16")
    assert in_bfloat16 == pytest.approx(loss, rel=0.02)
    assert in_bfloat16 != loss
    contiguous, in_other_order = trained(tmp_path / "order", name, channels_last=False)
    assert in_other_order == pytest.approx(loss, rel=1e-3)
    kernels = [p for key, p in contiguous.named_parameters() if key.startswith("trunks.") and p.ndim == 4]
    assert all(kernel.is_contiguous() for kernel in kernels)
    assert not all(p.is_contiguous() for p in model.parameters())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
