"""What is asked of every baseline alike. Run as a program, this file prints what tests/golden keeps of them:

python tests/baselines/test_all_baselines.py > tests/golden/joint_features.txt
"""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, os.fspath(Path(__file__).parents[1]))

import pytest
import torch
from baseline_inputs import BUILD, CATEGORIES, DIMS, joint_of, make_inputs, seeded
from safetensors.torch import load_file, save_file

from ccim_ray.baselines.emoticon import EmotiCon
from ccim_ray.baselines.losses import make_loss, multiplicative

GOLDEN = Path(__file__).parents[1] / "golden" / "joint_features.txt"
JOINT_DIMS = {"caer_net": 128, "gcn_cnn": 1024, "emoticon": 78}
every_baseline = pytest.mark.parametrize("name", BUILD)


@every_baseline
def test_joint_feature_has_the_papers_dimension(name):
    baseline = seeded(BUILD[name])
    joint_BH = joint_of(baseline(make_inputs(3)))
    assert joint_BH.shape == (3, JOINT_DIMS[name.split()[0]])
    assert baseline.joint_dim == joint_BH.shape[1]
    assert joint_BH.dtype == torch.float32


@every_baseline
def test_a_training_step_reaches_every_parameter_with_a_batch_of_two(name):
    baseline = seeded(BUILD[name]).train()
    classifier = torch.nn.Linear(baseline.joint_dim, CATEGORIES)
    targets_BK = torch.eye(CATEGORIES)[[1, 3]]
    output = baseline(make_inputs(2))
    loss = make_loss("cross_entropy")(classifier(joint_of(output)), targets_BK)
    if isinstance(baseline, EmotiCon):
        loss = loss + multiplicative(output.modality_logits_BMK, targets_BK, single_label=True)
    loss.backward()
    for parameter_name, parameter in baseline.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        if parameter_name == "attention.layers.4.bias" and name == "caer_net as re-implemented":
            continue  # softmax does not see what is added to all its inputs
        assert parameter.grad.abs().sum() > 0, parameter_name


@every_baseline
def test_each_subject_is_recognised_by_itself_in_eval(name):
    baseline = seeded(BUILD[name]).eval()
    inputs = make_inputs(3)
    together = joint_of(baseline(inputs))
    alone = [joint_of(baseline({view: value[row : row + 1] for view, value in inputs.items()})) for row in range(3)]
    torch.testing.assert_close(torch.cat(alone), together, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(together[0], together[1])


@every_baseline
def test_the_seed_decides_the_weights(name):
    first, again, other = (seeded(BUILD[name], seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@every_baseline
def test_state_survives_a_file(name, tmp_path):
    trained = seeded(BUILD[name])
    trained(make_inputs(4, seed=1))  # moves the running statistics of batch norm
    save_file(trained.state_dict(), tmp_path / "weights.safetensors")
    loaded = seeded(BUILD[name], seed=1)
    loaded.load_state_dict(load_file(tmp_path / "weights.safetensors"), strict=True)
    inputs = make_inputs(2)
    assert torch.equal(joint_of(loaded.eval()(inputs)), joint_of(trained.eval()(inputs)))


@every_baseline
def test_every_input_that_is_declared_counts(name):
    baseline = seeded(BUILD[name]).eval()
    inputs = make_inputs(2)
    before = joint_of(baseline(inputs))
    for view in baseline.views:
        changed = joint_of(baseline(inputs | {view: make_inputs(2, seed=1)[view]}))
        assert not torch.allclose(before, changed), view


@every_baseline
def test_a_missing_view_is_named(name):
    for view in seeded(BUILD[name]).views:
        dims = {other: dim for other, dim in DIMS.items() if other != view}
        with pytest.raises(ValueError, match=rf"no feature dimension for \['{view}'\]"):
            BUILD[name].func(dims, CATEGORIES, **BUILD[name].keywords)


@pytest.mark.parametrize("name", ["emoticon with depth", "emoticon with agents", "gcn_cnn", "caer_net"])
def test_half_precision_autocast_changes_little(name):
    baseline, inputs = seeded(BUILD[name]).eval(), make_inputs(2)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = joint_of(baseline(inputs)).float()
    exact = joint_of(baseline(inputs))
    assert (rounded - exact).abs().max() < 0.05 * exact.abs().max()


def golden_line(name):
    """Eight dimensions of h of one subject, spread over all streams, in eval mode."""
    with torch.no_grad():
        joint_H = joint_of(seeded(BUILD[name], seed=7).eval()(make_inputs(1, seed=7)))[0]
    values = joint_H[:: len(joint_H) // 8][:8]
    return f"{name}\t" + " ".join(f"{value:.6f}" for value in values.tolist())


def test_joint_features_are_those_kept():
    kept = dict(line.split("\t") for line in GOLDEN.read_text().splitlines())
    found = dict(golden_line(name).split("\t") for name in BUILD)
    assert set(found) == set(kept)
    for name, values in found.items():
        expected = [float(value) for value in kept[name].split()]
        assert [float(value) for value in values.split()] == pytest.approx(expected, rel=1e-4, abs=2e-6), name


if __name__ == "__main__":
    sys.stdout.write("".join(golden_line(name) + "\n" for name in BUILD))
