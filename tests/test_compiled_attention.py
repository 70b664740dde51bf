"""Additive attention as a model that is compiled has it."""

import pytest
import torch

from ccim_ray.intervention import additive_scores, plain_additive_scores


@pytest.mark.slow
def test_the_plain_additive_scores_are_the_same_compiled():
    """What a model that is compiled for a GPU computes; here it is compiled for the processor."""
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(*shape, generator=generator, requires_grad=True) for shape in ((6, 8), (11, 8), (8,))]
    factors = torch.randn(6, 11, generator=generator)
    compiled = torch.compile(plain_additive_scores, fullgraph=True)(*inputs)
    expected = additive_scores(*inputs)
    torch.testing.assert_close(compiled, expected)
    gradients = [torch.autograd.grad((of * factors).sum(), inputs) for of in (compiled, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
