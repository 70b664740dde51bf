"""Weights of a detector in the layout in which torchvision publishes them, from a seeded initialisation."""

from __future__ import annotations

from pathlib import Path

import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

MOBILENET = "fasterrcnn_mobilenet_v3_large_320_fpn"


def torchvision_detector(name: str) -> nn.Module:
    """torchvision's own network in eval mode, which finds persons or none according to the picture.

    Trained weights keep signals at one scale; these are scaled so that they do, and so that a person's score lies
    around one half.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = torchvision.models.get_model(name, weights=None, weights_backbone=None)
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            elif isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.running_mean, -0.1, 0.1)
                nn.init.uniform_(layer.running_var, 0.8, 1.2)
    with torch.no_grad():
        network.rpn.head.cls_logits.weight /= 100
        network.rpn.head.bbox_pred.weight /= 100
        predictor = network.roi_heads.box_predictor
        predictor.cls_score.weight /= 200
        predictor.cls_score.bias[1] = -0.59  # of the pictures in the tests, about half show nobody
        predictor.cls_score.bias[2:] = -9
        predictor.bbox_pred.weight /= 300
    return network.eval()


def published_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """torchvision's files of detectors were saved with frozen normalisation, which counts no batches."""
    state = network.state_dict()
    return {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}


def write_detector(folder: Path, name: str = MOBILENET) -> nn.Module:
    """Write ``<folder>/<name>_coco.safetensors``; returns torchvision's network with the same weights."""
    network = torchvision_detector(name)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(published_state(network), folder / f"{name}_coco.safetensors")
    return network
