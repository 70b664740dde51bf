"""How large a model is: parameters, and floating point operations for one subject."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ccim_ray.baselines.registry import baseline_label, inputs_of
from ccim_ray.deconfounders.card import CONTEXT_FEATURES
from ccim_ray.deconfounders.registry import deconfounder_card
from ccim_ray.experiment import Experiment
from ccim_ray.perception.architectures import architecture, is_geometry
from ccim_ray.perception.backbones import Backbone, build_network
from ccim_ray.perception.geometry import SHAPES
from ccim_ray.plan import Plan
from ccim_ray.trial import assemble_recogniser, blank_dictionary


@dataclass(frozen=True)
class ModelSize:
    """Size of a trial's model.

    Attributes:
        trained: parameters that training changes.
        frozen: parameters of the trunks whose features a head reads.
        flops: of one forward pass for one subject, trunks included; a multiplication and an addition are two. Those of
            convolutions and matrix products, which is nearly all.
    """

    trained: int
    frozen: int
    flops: int

    def __str__(self) -> str:
        frozen = f", {_short(self.frozen)} frozen" if self.frozen else ""
        return f"{_short(self.trained)} parameters trained{frozen}, {_short(self.flops)}FLOPs a subject"


def size_lines(plan: Plan) -> list[str]:
    """One line for each model of the plan; seeds share theirs."""
    models = {(planned.baseline, planned.setting): planned.trial.experiment for planned in plan.trials}
    return [
        f"{baseline_label(baseline)}, {setting}: {model_size(experiment, len(plan.source.categories))}"
        for (baseline, setting), experiment in models.items()
    ]


def model_size(experiment: Experiment, num_categories: int) -> ModelSize:
    """Size of the experiment's model; no weight is loaded or drawn for its trunks."""
    trunks = {view: _undrawn_backbone(trunk.arch, view) for view, trunk in experiment.trunks.items()}
    recogniser = assemble_recogniser(experiment, num_categories, blank_dictionary(experiment), trunks).eval()
    with _Operations() as operations, torch.no_grad():
        recogniser(one_subject(experiment))
    frozen = sum(map(_parameters, trunks.values())) if experiment.trainable == "head" else 0
    return ModelSize(_parameters(recogniser) - frozen, frozen, operations.counted)


@cache
def _undrawn_backbone(arch: str, view: str) -> Backbone:
    """A backbone whose weights have shapes and no values: drawing them takes a second for the larger networks.

    The models of a plan share it, but not the views of one model: its parameters are counted for each.
    """
    with torch.device("meta"):
        network = build_network(arch, 1)
    values = {name: torch.empty(value.shape, dtype=value.dtype) for name, value in network.state_dict().items()}
    network.load_state_dict(values, assign=True)  # to_empty would import sympy
    return Backbone(architecture(arch), network)


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts by torch's own formulas. Its FlopCounterMode imports torch._dynamo for it, a second and more of a plan."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counted = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # a mode that it should skip, torch wraps in an import of torch._dynamo

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.counted += formula(*args, **(kwargs or {}), out_val=result)
        return result


def one_subject(experiment: Experiment) -> dict[str, Tensor]:
    """Inputs of the experiment's model for one subject, all zero: views (1, S, S, 3) uint8, geometry float32."""
    views: dict[str, Tensor] = {}
    for item in inputs_of(experiment.baseline, experiment.baseline_options):
        if is_geometry(item.view):
            views[item.view] = torch.zeros(1, *SHAPES[item.view])
        else:
            side = architecture(experiment.trunks[item.view].arch).input_size
            views[item.view] = torch.zeros(1, side, side, 3, dtype=torch.uint8)
    if CONTEXT_FEATURES in deconfounder_card(experiment.deconfounder).trains_with:
        views[CONTEXT_FEATURES] = torch.zeros(1, architecture(experiment.backbone.arch).feature_dim)
    return views


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _short(count: int) -> str:
    """In thousands, millions or billions: "1.2 M"."""
    for unit, letter in ((1e9, "G"), (1e6, "M")):
        if count >= unit:
            return f"{count / unit:.1f} {letter}"
    return f"{count / 1e3:.1f} k"
