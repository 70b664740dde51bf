"""The whole model: with and without trunks, with and without CCIM."""

import pytest
import torch
from torch import nn

from ccim_ray.baselines.card import Input
from ccim_ray.baselines.registry import build_baseline, inputs_of
from ccim_ray.confounders import ConfounderDictionary
from ccim_ray.intervention import CCIM
from ccim_ray.perception.weights import load_backbone
from ccim_ray.recogniser import Recogniser

DIMS = {"context": 512, "body": 512}


def make_ccim():
    generator = torch.Generator().manual_seed(0)
    features_MD = torch.rand(40, 24, generator=generator).numpy()
    dictionary = ConfounderDictionary.fit(features_MD, size=6, seed=0)
    return CCIM(joint_dim=256, dictionary=dictionary)


def make_recogniser(*, with_ccim, with_trunks=False, trunks=None, seed=0):
    torch.manual_seed(seed)
    baseline = build_baseline("emot_net", DIMS, 7)
    ccim = make_ccim() if with_ccim else None
    if with_trunks:
        trunks = {view: load_backbone("thin_resnet", "random") for view in DIMS}
    return Recogniser(baseline, inputs_of("emot_net", {}), 7, ccim, trunks)


def make_pictures(batch):
    generator = torch.Generator().manual_seed(1)
    return {view: torch.randint(0, 256, (batch, 64, 64, 3), generator=generator, dtype=torch.uint8) for view in DIMS}


@pytest.mark.parametrize("with_ccim", [False, True])
def test_head_mode_is_classifier_of_ccim_of_baseline(with_ccim):
    model = make_recogniser(with_ccim=with_ccim).eval()
    features = {view: torch.rand(3, 512) for view in DIMS}
    joint_BH = model.baseline(features)
    hidden = model.ccim(joint_BH) if with_ccim else joint_BH
    assert hidden.shape == (3, 128 if with_ccim else 256)
    logits_BK, modality_logits_BMK = model(features)
    assert modality_logits_BMK is None
    assert logits_BK.shape == (3, 7)
    torch.testing.assert_close(logits_BK, hidden @ model.classifier.weight.T + model.classifier.bias)


@pytest.mark.parametrize("with_ccim", [False, True])
def test_gradient_reaches_every_parameter_end_to_end(with_ccim):
    model = make_recogniser(with_ccim=with_ccim, with_trunks=True).train()
    # The query is all but blind at first (lambda is nearly uniform), so gradients are looked at in float64.
    model.double()
    views = make_pictures(8)
    features = {view: model.trunks[view](model.trunks[view].normalise(views[view]).double()) for view in views}
    joint_BH = model.baseline(features)
    hidden = model.ccim(joint_BH) if with_ccim else joint_BH
    model.classifier(hidden).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_trunks_on_pictures_equal_the_head_on_their_features():
    whole = make_recogniser(with_ccim=True, with_trunks=True).eval()
    head = make_recogniser(with_ccim=True).eval()
    pictures = make_pictures(4)
    with torch.no_grad():
        features = {view: whole.trunks[view](whole.trunks[view].normalise(pictures[view])) for view in pictures}
        torch.testing.assert_close(whole(pictures).logits_BK, head(features).logits_BK)


@pytest.mark.parametrize("with_trunks", [False, True])
def test_a_batch_of_one_works_in_eval(with_trunks):
    model = make_recogniser(with_ccim=True, with_trunks=with_trunks).eval()
    inputs = make_pictures(1) if with_trunks else {view: torch.rand(1, 512) for view in DIMS}
    with torch.no_grad():
        assert model(inputs).logits_BK.isfinite().all()


def test_equal_seeds_give_equal_initial_weights():
    first = make_recogniser(with_ccim=True, with_trunks=True, seed=3).state_dict()
    again = make_recogniser(with_ccim=True, with_trunks=True, seed=3).state_dict()
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    plain = make_recogniser(with_ccim=False, seed=3).state_dict()
    assert torch.equal(first["baseline.fusion.0.weight"], plain["baseline.fusion.0.weight"])


def test_a_view_without_a_trunk_is_refused():
    with pytest.raises(ValueError, match="context"):
        make_recogniser(with_ccim=False, trunks={"context": load_backbone("thin_resnet", "random")})


class RegionsOfMap(nn.Module):
    """Reads a map, a feature and boxes; its two modalities predict too."""

    joint_dim = 6

    def __init__(self):
        super().__init__()
        self.of_map, self.of_body, self.of_boxes = nn.Linear(512, 6), nn.Linear(512, 6), nn.Linear(40, 6)
        self.predictions = nn.ModuleList(nn.Linear(6, 3) for _ in range(2))

    def forward(self, features):
        peak_BD = features["context"].amax((2, 3))
        streams = [self.of_map(peak_BD), self.of_body(features["body"]), self.of_boxes(features["regions"].flatten(1))]
        by_modality = [predict(stream) for predict, stream in zip(self.predictions, streams, strict=False)]
        return sum(streams), torch.stack(by_modality, 1)


MIXED = (
    Input("context", "map", ("thin_resnet", "random")),
    Input("body", "pooled", ("thin_resnet", "random")),
    Input("regions", "geometry"),
)


def mixed_recogniser(*, with_trunks):
    torch.manual_seed(0)
    trunks = {view: load_backbone("thin_resnet", "random") for view in DIMS} if with_trunks else None
    return Recogniser(RegionsOfMap(), MIXED, 3, trunks=trunks).eval()


def test_maps_and_boxes_reach_the_baseline_and_the_modalities_come_back():
    head = mixed_recogniser(with_trunks=False)
    inputs = {"context": torch.rand(4, 512, 4, 4).half(), "body": torch.rand(4, 512), "regions": torch.rand(4, 10, 4)}
    logits_BK, modality_logits_BMK = head(inputs)
    assert logits_BK.dtype == modality_logits_BMK.dtype == torch.float32
    joint_BH, expected = head.baseline(inputs | {"context": inputs["context"].float()})
    assert modality_logits_BMK.shape == (4, 2, 3)
    torch.testing.assert_close(modality_logits_BMK, expected)
    torch.testing.assert_close(logits_BK, head.classifier(joint_BH))


def test_a_trunk_gives_its_map_or_its_mean_as_the_baseline_asks():
    whole, head = mixed_recogniser(with_trunks=True), mixed_recogniser(with_trunks=False)
    pictures, regions = make_pictures(4), torch.rand(4, 10, 4)
    trunk = load_backbone("thin_resnet", "random")
    with torch.no_grad():
        maps = {view: trunk.trunk(trunk.normalise(pictures[view])) for view in pictures}
        assert maps["context"].shape == (4, 512, 4, 4)
        found = whole(pictures | {"regions": regions})
        expected = head({"context": maps["context"], "body": maps["body"].mean((2, 3)), "regions": regions})
    torch.testing.assert_close(found.logits_BK, expected.logits_BK)
    torch.testing.assert_close(found.modality_logits_BMK, expected.modality_logits_BMK)


def test_geometry_has_no_trunk_and_every_picture_has_one():
    trunk = load_backbone("thin_resnet", "random")
    for trunks in ({"context": trunk}, {"context": trunk, "body": trunk, "regions": trunk}):
        with pytest.raises(ValueError, match="picture views are .*body.*context"):
            Recogniser(RegionsOfMap(), MIXED, 3, trunks=trunks)
