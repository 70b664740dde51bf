"""EmotiCon's three streams, and the predictions of its modalities."""

import numpy as np
import pytest
import torch
from baseline_inputs import DIMS, make_inputs, seeded

from ccim_ray.baselines.emoticon import (
    BONES,
    AgentStream,
    EmotiCon,
    PoseStream,
    SceneStream,
    agent_adjacency,
    skeleton_adjacency,
)
from ccim_ray.baselines.graphs import normalise_adjacency

NAMES = [
    "nose",
    "neck",
    "right_shoulder",
    "right_elbow",
    "right_wrist",
    "left_shoulder",
    "left_elbow",
    "left_wrist",
    "right_hip",
    "right_knee",
    "right_ankle",
    "left_hip",
    "left_knee",
    "left_ankle",
    "right_eye",
    "left_eye",
    "right_ear",
    "left_ear",
]
PARENTS = {
    "nose": "neck",
    "right_shoulder": "neck",
    "right_elbow": "right_shoulder",
    "right_wrist": "right_elbow",
    "left_shoulder": "neck",
    "left_elbow": "left_shoulder",
    "left_wrist": "left_elbow",
    "right_hip": "neck",
    "right_knee": "right_hip",
    "right_ankle": "right_knee",
    "left_hip": "neck",
    "left_knee": "left_hip",
    "left_ankle": "left_knee",
    "right_eye": "nose",
    "left_eye": "nose",
    "right_ear": "right_eye",
    "left_ear": "left_eye",
}


def array(tensor):
    return tensor.detach().double().numpy()


def emoticon(sociodynamic="depth", categories=5):
    return seeded(lambda: EmotiCon(DIMS, categories, sociodynamic=sociodynamic)).eval()


def graph_layer(nodes_NC, adjacency_NN, layer):
    return np.maximum(adjacency_NN @ (nodes_NC @ array(layer.linear.weight).T + array(layer.linear.bias)), 0)


def test_the_skeleton_is_that_of_openpose():
    bones = {frozenset((NAMES.index(child), NAMES.index(parent))) for child, parent in PARENTS.items()}
    assert {frozenset(bone) for bone in BONES} == bones
    assert len(BONES) == 17


def test_skeleton_normalisation_in_numpy():
    degree = {name: 1 + (name in PARENTS) + list(PARENTS.values()).count(name) for name in NAMES}
    expected = np.diag([1 / degree[name] for name in NAMES])
    for child, parent in PARENTS.items():
        i, j = NAMES.index(child), NAMES.index(parent)
        expected[i, j] = expected[j, i] = 1 / np.sqrt(degree[child] * degree[parent])
    found = normalise_adjacency(skeleton_adjacency(), torch.ones(1, 18, dtype=torch.bool))
    np.testing.assert_allclose(array(found[0]), expected, rtol=1e-6)


def test_pose_stream_in_numpy_over_the_joints_that_are_known():
    stream = seeded(lambda: PoseStream(26))
    for importance_VV in stream.importance:
        torch.nn.init.uniform_(importance_VV, 0.5, 1.5)
    keypoints_BV3 = make_inputs(2)["keypoints"]
    known = [joint for joint in range(18) if joint not in (3, 4)]
    adjacency = array(skeleton_adjacency())[np.ix_(known, known)]
    root = np.diag(1 / np.sqrt(adjacency.sum(1)))
    found = array(stream(keypoints_BV3))
    for subject in range(2):
        nodes = array(keypoints_BV3[subject, known, :2])
        for layer, importance in zip(stream.layers, stream.importance, strict=True):
            nodes = graph_layer(nodes, (root @ adjacency @ root) * array(importance)[np.ix_(known, known)], layer)
        expected = array(stream.output.weight) @ nodes.mean(0) + array(stream.output.bias)
        np.testing.assert_allclose(found[subject], expected, rtol=1e-4, atol=1e-6)


def test_where_an_unknown_joint_lies_does_not_matter_but_that_it_is_known_does():
    stream = seeded(lambda: PoseStream(26))
    keypoints_BV3 = make_inputs(2)["keypoints"]
    elsewhere, known = keypoints_BV3.clone(), keypoints_BV3.clone()
    elsewhere[:, 3, :2] = 0.7
    known[:, 3] = torch.tensor([0.7, 0.7, 1])
    torch.testing.assert_close(stream(elsewhere), stream(keypoints_BV3), rtol=0, atol=0)
    assert not torch.allclose(stream(known), stream(keypoints_BV3))


def test_a_subject_without_any_joint_gets_finite_values_and_gradients():
    stream = seeded(lambda: PoseStream(26))
    output_BF = stream(torch.zeros(2, 18, 3))
    assert torch.equal(output_BF[0], stream.output.bias)
    output_BF.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in stream.parameters())


def test_learned_importance_tells_joints_apart():
    """Mirrored bodies are one to the plain graph; its weights can learn which side is which."""
    stream = seeded(lambda: PoseStream(26))
    keypoints_BV3 = torch.rand(1, 18, 3)
    keypoints_BV3[..., 2] = 1
    swapped = [
        NAMES.index(name.replace("left", "R").replace("right", "left").replace("R", "right"))  # each side's partner
        for name in NAMES
    ]
    mirrored = keypoints_BV3[:, swapped]
    torch.testing.assert_close(stream(mirrored), stream(keypoints_BV3))
    torch.nn.init.uniform_(stream.importance[0], 0.5, 1.5)
    assert not torch.allclose(stream(mirrored), stream(keypoints_BV3))


def test_scene_stream_adds_the_attended_map_to_the_map():
    stream = seeded(lambda: SceneStream(8, 5, 26)).eval()
    context_map = make_inputs(2)["masked_context"]
    attention = array(stream.attention(stream.category_maps(context_map)))
    assert attention.min() > 0
    assert attention.max() < 1
    attended = array(context_map) * (1 + attention)
    expected = attended.mean((2, 3)) @ array(stream.output.weight).T + array(stream.output.bias)
    np.testing.assert_allclose(array(stream(context_map)[0]), expected, rtol=1e-4, atol=1e-6)


def test_the_attention_branch_learns_from_its_own_prediction():
    stream = seeded(lambda: SceneStream(8, 5, 26)).train()
    _, logits_BK = stream(make_inputs(2)["masked_context"])
    logits_BK.square().sum().backward()
    assert stream.category_maps[0].weight.grad.abs().sum() > 0
    assert stream.output.weight.grad is None


def test_agent_stream_in_numpy_over_the_agents_that_are_there():
    stream = seeded(lambda: AgentStream(26))
    agents_BN5 = make_inputs(2)["agents"]
    for subject in range(2):
        nodes = array(agents_BN5[subject, :4, :4])
        centres = (nodes[:, :2] + nodes[:, 2:]) / 2
        adjacency = np.exp(-np.sqrt(((centres[:, None] - centres[None]) ** 2).sum(2)))
        np.testing.assert_allclose(array(agent_adjacency(agents_BN5[:, :4, :4])[subject]), adjacency, rtol=1e-5)
        root = np.diag(1 / np.sqrt(adjacency.sum(1)))
        for layer in stream.layers:
            nodes = graph_layer(nodes, root @ adjacency @ root, layer)
        hidden = np.maximum(array(stream.output[0].weight) @ nodes[0] + array(stream.output[0].bias), 0)
        expected = array(stream.output[2].weight) @ hidden + array(stream.output[2].bias)
        np.testing.assert_allclose(array(stream(agents_BN5)[subject]), expected, rtol=1e-4, atol=1e-6)


def test_order_of_the_others_does_not_matter_but_who_the_subject_is_does():
    net, inputs = emoticon("agents"), make_inputs(2)
    agents = inputs["agents"]
    before = net(inputs).joint_BH
    others = agents[:, [0, 8, 3, 5, 1, 7, 2, 6, 4]]
    torch.testing.assert_close(net(inputs | {"agents": others}).joint_BH, before)
    assert not torch.allclose(net(inputs | {"agents": agents[:, [1, 0, *range(2, 9)]]}).joint_BH, before)


def test_empty_rows_of_agents_have_no_influence():
    net, inputs = emoticon("agents"), make_inputs(2)
    filled = inputs["agents"].clone()
    filled[:, 4:, :4] = 0.5
    before = net(inputs).joint_BH
    assert torch.equal(net(inputs | {"agents": filled}).joint_BH, before)
    torch.testing.assert_close(net(inputs | {"agents": inputs["agents"][:, :4]}).joint_BH, before)
    filled[:, 4, 4] = 1
    assert not torch.allclose(net(inputs | {"agents": filled}).joint_BH, before)


@pytest.mark.parametrize("sociodynamic", ["depth", "agents"])
@pytest.mark.parametrize(
    ("changed", "stream"), [("face", 0), ("keypoints", 0), ("masked_context", 1), ("depth", 2), ("agents", 2)]
)
def test_each_input_changes_its_own_stream_alone(changed, stream, sociodynamic):
    net, inputs = emoticon(sociodynamic), make_inputs(2)
    before = net(inputs).joint_BH.split(26, dim=1)
    after = net(inputs | {changed: make_inputs(2, seed=1)[changed]}).joint_BH.split(26, dim=1)
    differs = [not torch.equal(*pair) for pair in zip(before, after, strict=True)]
    unused = changed in ("depth", "agents") and changed != sociodynamic
    assert differs == [k == stream and not unused for k in range(3)]


def test_each_modality_predicts_by_itself():
    net, inputs = emoticon(categories=4), make_inputs(2)
    before = net(inputs).modality_logits_BMK
    assert before.shape == (2, 3, 4)
    for row, changed in enumerate(["face", "keypoints", "masked_context"]):
        after = net(inputs | {changed: make_inputs(2, seed=1)[changed]}).modality_logits_BMK
        assert [not torch.equal(before[:, k], after[:, k]) for k in range(3)] == [k == row for k in range(3)]
    assert net.modalities == ("face", "pose", "scene")


def test_the_joint_feature_is_as_long_whatever_the_number_of_categories():
    assert {emoticon(categories=categories)(make_inputs(2)).joint_BH.shape[1] for categories in (4, 7, 26)} == {78}


@pytest.mark.parametrize(
    ("sociodynamic", "third", "total"),
    [("depth", 256 * 1000 + 1000 + 1000 * 26 + 26, 358_728), ("agents", 4 * 64 + 64 + 64 * 65 + 6500 + 2626, 89_308)],
)
def test_number_of_parameters(sociodynamic, third, total):
    face = 256 * 128 + 128 + 128 * 26 + 26
    pose = (2 * 32 + 32) + (32 * 64 + 64) + (64 * 64 + 64) + 3 * 18 * 18 + 64 * 26 + 26
    predictions, fusion = 2 * (26 * 26 + 26), 52 * 26 + 26
    scene = (512 * 26 + 2 * 26) + (26 * 26 + 26) + (26 * 9 + 2) + (512 * 26 + 26)
    net = EmotiCon({"face": 256, "masked_context": 512, "depth": 256}, 26, sociodynamic=sociodynamic)
    found = sum(parameter.numel() for parameter in net.parameters())
    assert found == face + pose + predictions + fusion + scene + third == total
