"""The same numbers on a GPU as on a CPU, to the tolerance of float32."""

from __future__ import annotations

import pytest
import torch

from ccim_ray import CCIM, ConfounderDictionary
from ccim_ray.perception.architectures import ViewRequest
from ccim_ray.perception.weights import load_backbone

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("attention", ["dot_product", "additive"])
def test_ccim(attention: str) -> None:
    torch.manual_seed(0)
    ccim = CCIM(256, ConfounderDictionary.random(1024, 2048), attention=attention)
    joint_BH = torch.randn(64, 256)
    on_cpu = ccim(joint_BH)
    on_gpu = ccim.cuda()(joint_BH.cuda())
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=1e-4, atol=1e-4)


def test_backbone_features() -> None:
    request = ViewRequest("context", "thin_resnet", "scenes")
    backbone = load_backbone(request.arch, "scenes")
    pictures = torch.randint(0, 256, (16, 64, 64, 3), dtype=torch.uint8)
    with torch.inference_mode():
        on_cpu = backbone(backbone.normalise(pictures))
        moved = backbone.cuda()
        on_gpu = moved(moved.normalise(pictures.cuda()))
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=1e-3, atol=1e-3)
