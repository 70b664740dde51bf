"""CCIM against Eq. 4 to 7 written as loops, against the released broadcast form, and in bounded memory."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from ccim_ray import intervention
from ccim_ray.confounders import ConfounderDictionary
from ccim_ray.intervention import CCIM, additive_scores

ATTENTIONS = ["dot_product", "additive"]
SWITCHES = [(True, True), (True, False), (False, True), (False, False)]


def make_dictionary(size, feature_dim, seed=0):
    generator = torch.Generator().manual_seed(seed)
    counts = torch.rand(size, generator=generator) + 0.1
    prototypes = torch.randn(size, feature_dim, generator=generator).abs()
    return ConfounderDictionary(prototypes, counts / counts.sum())


def make_ccim(attention="dot_product", use_lambda=True, use_prior=True, size=7, context_weights="paper", **widths):
    widths = {"joint_dim": 5, "feature_dim": 6, "output_dim": 4, "attention_dim": 3, **widths}
    dictionary = make_dictionary(size, widths.pop("feature_dim"))
    torch.manual_seed(1)
    switches = {"use_lambda": use_lambda, "use_prior": use_prior, "context_weights": context_weights}
    return CCIM(dictionary=dictionary, attention=attention, **switches, **widths).double()


def make_joint(batch, joint_dim=5):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(batch, joint_dim, generator=generator, dtype=torch.float64).requires_grad_()


def equations(ccim, joint):
    """Eq. 4 to 7, a sample and a prototype at a time."""
    w_h, w_g = ccim.joint_projection.weight, ccim.context_projection.weight
    outputs = []
    for h in joint:
        logits = []
        for z in ccim.dictionary_ND if ccim.use_lambda else []:
            if ccim.attention == "dot_product":
                logit = (ccim.query.weight @ h).dot(ccim.key.weight @ z) / math.sqrt(len(z))
            else:
                logit = ccim.score.weight[0].dot(torch.tanh(ccim.query.weight @ h + ccim.key.weight @ z))
            logits.append(logit)
        expectation = torch.zeros_like(ccim.dictionary_ND[0])
        normaliser = sum(logit.exp() for logit in logits)
        for i, z in enumerate(ccim.dictionary_ND):
            weight = logits[i].exp() / normaliser if ccim.use_lambda else 1.0
            prior = ccim.prior_N[i] if ccim.use_prior else 1.0
            expectation = expectation + weight * prior * z
        outputs.append(w_h @ h + w_g @ expectation)
    return torch.stack(outputs)


def broadcast_form(ccim, joint):
    """The released formulation: B x N x d products of attention (B, N, 1), prototypes and prior (N, 1)."""
    prototypes, prior = ccim.dictionary_ND, ccim.prior_N[:, None]
    query, key = ccim.query(joint), ccim.key(prototypes)
    if ccim.attention == "dot_product":
        logits = query.matmul(key.permute(1, 0)) / math.sqrt(prototypes.shape[1])
    else:
        logits = ccim.score(torch.tanh(query.unsqueeze(1) + key)).squeeze(-1)
    attention = torch.softmax(logits, -1).unsqueeze(2)
    product = attention * prototypes
    if ccim.use_prior:
        product = product * prior
    return joint @ ccim.joint_projection.weight.T + product.sum(1) @ ccim.context_projection.weight.T


def renormalised(ccim, joint):
    """W_h h + W_g m in numpy, m the mean of prototypes weighted by the weights that the switches leave of Eq. 5."""
    w = {name: value.detach().numpy() for name, value in ccim.state_dict().items()}
    h_BH, z_ND = joint.detach().numpy(), w["dictionary_ND"]
    weights_BN = np.ones((len(h_BH), len(z_ND)))
    if ccim.use_lambda:
        query_BA, key_NA = h_BH @ w["query.weight"].T, z_ND @ w["key.weight"].T
        if ccim.attention == "dot_product":
            logits_BN = np.einsum("ba,na->bn", query_BA, key_NA) / np.sqrt(z_ND.shape[1])
        else:
            logits_BN = np.tanh(query_BA[:, None] + key_NA) @ w["score.weight"][0]
        weights_BN = weights_BN * np.exp(logits_BN)
    if ccim.use_prior:
        weights_BN = weights_BN * w["prior_N"]
    means_BD = np.stack([np.average(z_ND, axis=0, weights=weights_N) for weights_N in weights_BN])
    return torch.from_numpy(h_BH @ w["joint_projection.weight"].T + means_BD @ w["context_projection.weight"].T)


def output_and_gradients(function, ccim, joint):
    output = function(joint)
    weighting = torch.linspace(-1, 2, output.numel(), dtype=output.dtype).view_as(output)
    gradients = torch.autograd.grad((output * weighting).sum(), [joint, *ccim.parameters()])
    return [output, *gradients]


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize(("use_lambda", "use_prior"), SWITCHES)
def test_equals_the_equations_in_outputs_and_gradients(attention, use_lambda, use_prior):
    ccim, joint = make_ccim(attention, use_lambda, use_prior), make_joint(4)
    ours = output_and_gradients(ccim, ccim, joint)
    theirs = output_and_gradients(lambda h: equations(ccim, h), ccim, joint)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("use_prior", [True, False])
def test_equals_the_released_formulation_in_outputs_and_gradients(attention, use_prior):
    sizes = {"joint_dim": 32, "feature_dim": 48, "output_dim": 16, "attention_dim": 24, "size": 40}
    ccim, joint = make_ccim(attention, use_prior=use_prior, **sizes), make_joint(9, 32)
    ours = output_and_gradients(ccim, ccim, joint)
    theirs = output_and_gradients(lambda h: broadcast_form(ccim, h), ccim, joint)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@settings(deadline=None, max_examples=30)
@given(
    widths=st.fixed_dictionaries(
        {name: st.integers(1, 6) for name in ("joint_dim", "feature_dim", "output_dim", "attention_dim", "size")}
    ),
    batch=st.integers(1, 5),
    attention=st.sampled_from(ATTENTIONS),
    switches=st.sampled_from(SWITCHES),
)
def test_equals_the_equations_for_any_shape(widths, batch, attention, switches):
    ccim = make_ccim(attention, *switches, **widths)
    joint = make_joint(batch, widths["joint_dim"])
    output = ccim(joint)
    assert output.shape == (batch, widths["output_dim"])
    torch.testing.assert_close(output, equations(ccim, joint), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize(("use_lambda", "use_prior"), SWITCHES)
def test_renormalised_is_the_weighted_mean_of_the_prototypes(attention, use_lambda, use_prior):
    ccim = make_ccim(attention, use_lambda, use_prior, context_weights="renormalised")
    joint = make_joint(4)
    torch.testing.assert_close(ccim(joint), renormalised(ccim, joint), rtol=1e-10, atol=1e-10)
    paper = make_ccim(attention, use_lambda, use_prior)
    paper.load_state_dict(ccim.state_dict())
    assert torch.allclose(ccim(joint), paper(joint)) == (use_lambda != use_prior)


def test_renormalised_weights_stay_finite_where_a_prior_is_zero():
    prior = torch.tensor([0.0, 1.0])
    ccim = CCIM(2, ConfounderDictionary(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), prior), context_weights="renormalised")
    joint = torch.full((3, 2), 1e4).requires_grad_()  # lambda is one-hot, and may name the prototype of prior zero
    for sign in (1, -1):
        output = ccim(sign * joint)
        output.sum().backward()
        expected = ccim.joint_projection(sign * joint) + ccim.context_projection.weight[:, 1]
        torch.testing.assert_close(output, expected)
    assert bool(joint.grad.isfinite().all())


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("context_weights", ["paper", "renormalised"])
def test_gradients_agree_with_finite_differences(attention, context_weights):
    ccim, joint = make_ccim(attention, context_weights=context_weights), make_joint(3)
    assert torch.autograd.gradcheck(lambda h, *_: ccim(h), (joint, *ccim.parameters()))


@pytest.mark.parametrize("chunk_elements", [1, 15, 40, 10_000])
def test_additive_scores_do_not_depend_on_the_chunk(monkeypatch, chunk_elements):
    monkeypatch.setattr(intervention, "CHUNK_ELEMENTS", chunk_elements)
    torch.manual_seed(0)
    inputs = [torch.randn(*shape, dtype=torch.float64).requires_grad_() for shape in ((5, 3), (11, 3), (3,))]
    query, key, weight = inputs
    direct = torch.tanh(query[:, None] + key) @ weight
    torch.testing.assert_close(additive_scores(*inputs), direct, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(additive_scores, inputs)


class LargestTensor(TorchDispatchMode):
    """Records the most elements of any tensor that an operation returns, in forward and backward."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


def largest_tensors(function, joint):
    """Most elements of a tensor made, and of a tensor kept for the backward pass."""
    kept = [0]

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    with LargestTensor() as made, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        function(joint).sum().backward()
    return made.numel, max(kept)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_never_makes_or_keeps_a_tensor_over_batch_prototypes_and_width(attention, monkeypatch):
    monkeypatch.setattr(intervention, "CHUNK_ELEMENTS", 2**12)
    batch, size, width = 32, 64, 48
    sizes = {"joint_dim": width, "feature_dim": width, "output_dim": 8, "attention_dim": width}
    ccim, joint = make_ccim(attention, size=size, **sizes), make_joint(batch, width)
    # The largest that is needed: the dictionary, the keys, a map of weights, or one chunk.
    bound = max(size * width, width * width, batch * size, 2**12)
    made, kept = largest_tensors(ccim, joint)
    assert made <= bound < batch * size * width
    assert kept <= max(size * width, batch * size)
    assert largest_tensors(lambda h: broadcast_form(ccim, h), joint)[0] == batch * size * width


def test_linear_maps_have_the_documented_names_and_no_bias():
    names = {"joint_projection", "context_projection"}
    cases = [
        (make_ccim("dot_product"), names | {"query", "key"}),
        (make_ccim("additive"), names | {"query", "key", "score"}),
        (make_ccim("dot_product", use_lambda=False), names),
        (make_ccim("additive", use_lambda=False), names),
    ]
    for ccim, expected in cases:
        assert {name for name, _ in ccim.named_parameters()} == {f"{name}.weight" for name in expected}
    ccim = CCIM(joint_dim=10, dictionary=make_dictionary(4, 20))
    assert ccim.joint_projection.weight.shape == (128, 10)
    assert ccim.context_projection.weight.shape == (128, 20)
    assert ccim.query.weight.shape == (256, 10)
    assert ccim.key.weight.shape == (256, 20)


def test_projections_start_as_xavier_normal():
    torch.manual_seed(0)
    ccim = CCIM(joint_dim=256, dictionary=make_dictionary(4, 512))
    for linear, fan_in in ((ccim.joint_projection, 256), (ccim.context_projection, 512)):
        expected = math.sqrt(2 / (fan_in + 128))
        assert linear.weight.std().item() == pytest.approx(expected, rel=0.03)
        assert linear.weight.abs().max().item() > 3 * expected  # a uniform draw would end at 1.73


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_lambda_is_a_softmax_over_prototypes(attention):
    lambda_BN = make_ccim(attention).lambda_BN(make_joint(4))
    assert lambda_BN.shape == (4, 7)
    assert bool((lambda_BN > 0).all())
    torch.testing.assert_close(lambda_BN.sum(1), torch.ones(4, dtype=torch.float64))


def test_without_lambda_the_causal_term_is_one_constant():
    ccim, joint = make_ccim(use_lambda=False), make_joint(5)
    assert torch.equal(ccim.lambda_BN(joint), torch.ones(5, 7, dtype=torch.float64))
    term = ccim(joint) - ccim.joint_projection(joint)
    torch.testing.assert_close(term, term[:1].expand_as(term))
    assert term.abs().max() > 0


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_state_dict_carries_the_dictionary(attention, tmp_path):
    trained = make_ccim(attention)
    torch.save(trained.state_dict(), tmp_path / "weights.pt")
    other = ConfounderDictionary.random(7, 6, seed=9)
    restored = CCIM(5, other, output_dim=4, attention_dim=3, attention=attention).double()
    joint = make_joint(3)
    assert not torch.equal(restored(joint), trained(joint))
    restored.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(restored(joint), trained(joint))
    assert torch.equal(restored.dictionary_ND, trained.dictionary_ND)
    assert torch.equal(restored.prior_N, trained.prior_N)


def test_dictionary_moves_with_the_module_and_is_not_trained():
    dictionary = make_dictionary(4, 6)
    ccim = CCIM(5, dictionary)
    assert ccim.dictionary_ND.dtype == torch.float32
    ccim.to(torch.float64)
    assert ccim.dictionary_ND.dtype == ccim.prior_N.dtype == torch.float64
    assert dict(ccim.named_buffers()).keys() == {"dictionary_ND", "prior_N"}
    ccim.dictionary_ND.zero_()
    assert dictionary.prototypes_ND.abs().sum() > 0


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_trains_under_autocast(attention):
    ccim, joint = make_ccim(attention).float(), make_joint(4).detach().float()
    exact = ccim(joint)
    with torch.autocast("cpu", torch.bfloat16):
        output = ccim(joint)
    output.float().sum().backward()
    torch.testing.assert_close(output.float(), exact, rtol=0.05, atol=0.05)
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in ccim.parameters())


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_an_empty_batch_gives_an_empty_output(attention):
    assert make_ccim(attention)(torch.empty(0, 5, dtype=torch.float64)).shape == (0, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"joint_dim": 0}, "joint_dim must be at least 1, found 0"),
        ({"output_dim": -1}, "output_dim"),
        ({"attention_dim": 0}, "attention_dim"),
        ({"attention": "cosine"}, "attention must be one of .*'cosine'"),
        ({"context_weights": "mean"}, "context_weights must be one of .*'mean'"),
    ],
)
def test_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message) as raised:
        CCIM(**{"joint_dim": 5, "dictionary": make_dictionary(4, 6), **arguments})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("shape", [(4, 6), (5,), (2, 4, 5)])
def test_refuses_a_joint_feature_of_another_shape(shape):
    ccim = make_ccim()
    with pytest.raises(ValueError, match=r"joint feature must be \(batch, 5\)"):
        ccim(torch.zeros(shape, dtype=torch.float64))


@pytest.mark.parametrize("attention", ["dot_product", "additive"])
def test_autocast_does_not_round_the_context_away(attention):
    torch.manual_seed(0)
    ccim = CCIM(256, ConfounderDictionary.random(64, 512), attention=attention)
    joint_BH = torch.randn(16, 256)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = ccim(joint_BH)
    assert under_autocast.dtype == torch.float32
    torch.testing.assert_close(under_autocast, ccim(joint_BH), rtol=0, atol=0)


@pytest.mark.parametrize("context_weights", ["paper", "renormalised"])
@pytest.mark.parametrize(("use_lambda", "use_prior"), SWITCHES)
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_folded_is_the_same_function_for_inference(attention, use_lambda, use_prior, context_weights):
    ccim = make_ccim(attention, use_lambda, use_prior, context_weights=context_weights)
    joint = make_joint(9)
    folded = ccim.folded()
    torch.testing.assert_close(folded(joint.detach()), ccim(joint).detach(), rtol=1e-12, atol=1e-12)
    assert not list(folded.parameters())
    with pytest.raises(ValueError, match="joint feature must be"):
        folded(joint[0])


def test_folded_holds_copies():
    ccim = make_ccim()
    joint = make_joint(3).detach()
    folded = ccim.folded()
    before = folded(joint)
    with torch.no_grad():
        for parameter in ccim.parameters():
            parameter.add_(1.0)
    assert torch.equal(folded(joint), before)
    assert not torch.allclose(ccim(joint), before)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 39.0, 60.0, 1e4])
def test_additive_scores_are_those_of_tanh_however_large_its_arguments(scale):
    generator = torch.Generator().manual_seed(4)
    query, key = (scale * (2 * torch.rand(rows, 6, generator=generator) - 1) for rows in (5, 9))
    key[:5] = -query + 0.1  # where they cancel, neither exponential may be lost
    weight = torch.randn(6, generator=generator)
    upstream = torch.randn(5, 9, generator=generator)
    given = [tensor.clone().requires_grad_() for tensor in (query, key, weight)]
    exact = [tensor.double().requires_grad_() for tensor in (query, key, weight)]
    scores = additive_scores(*given)
    reference = torch.tanh(exact[0][:, None] + exact[1]) @ exact[2]
    rounding = scale * 1e-6 + 1e-6
    torch.testing.assert_close(scores.double(), reference, rtol=0, atol=6 * rounding)
    ours = torch.autograd.grad(scores, given, upstream)
    theirs = torch.autograd.grad(reference, exact, upstream.double())
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=0, atol=60 * rounding)


def test_additive_scores_pass_on_what_is_not_a_number():
    query, key, weight = torch.zeros(2, 3), torch.zeros(4, 3), torch.ones(3)
    query[1, 1] = torch.nan
    scores = additive_scores(query, key, weight)
    assert scores[1].isnan().all()
    assert torch.equal(scores[0], torch.zeros(4))


@pytest.mark.parametrize(("batch", "size"), [(2, 50), (50, 2)])
def test_either_order_of_the_products_is_eq_6(batch, size):
    ccim = make_ccim(size=size)
    joint = make_joint(batch)
    torch.testing.assert_close(ccim(joint), broadcast_form(ccim, joint), rtol=1e-12, atol=1e-12)
