"""Conformance suites for plug-ins: what the platform relies on in a baseline and in a dataset.

Call them from a test of your own package; each raises AssertionError in one line that says what is wrong.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ccim_ray.baselines.card import BaselineCard, Input
from ccim_ray.baselines.dry_run import CATEGORIES, joint_fault, random_batch
from ccim_ray.baselines.registry import build_from_card, checked_options, inputs_from_card
from ccim_ray.datasets.consistency import dataset_faults
from ccim_ray.datasets.dataset import Dataset
from ccim_ray.datasets.images import read_size
from ccim_ray.datasets.subject import subjects_from_table, subjects_to_table

FEATURE_DIM = 32
SHOWN = 5


def check_baseline(card: BaselineCard, options: Mapping[str, Any] | None = None) -> None:
    """Check a baseline as its card builds it.

    Shapes of h; a gradient for every parameter; a batch of one in evaluation; determinism by seed; a round trip of its
    state; one training step under DDP with no unused parameter (one process, gloo).

    Args:
        card: describes the baseline.
        options: of the baseline; None takes the card's defaults.

    Raises:
        AssertionError: it does not conform; the message says how.
    """
    chosen = checked_options(card, options or {})
    inputs = inputs_from_card(card, chosen)
    baseline = _build(card, inputs, chosen, seed=0)
    for size in (8, 1):
        batch = random_batch(inputs, _feature_dims(inputs), size)
        fault = joint_fault(baseline, batch, CATEGORIES)
        assert fault is None, f"{card.name}: {fault}"
    batch = random_batch(inputs, _feature_dims(inputs), 8)
    _check_gradients(card, baseline, batch)
    _check_determinism(card, inputs, chosen, batch)
    _check_ddp(card, _build(card, inputs, chosen, seed=0), batch)


def check_dataset(dataset: Dataset) -> None:
    """Check a dataset as a loader returned it.

    Ids are unique; labels are known, and one each where it is single-label; boxes lie in their image, at least a pixel
    wide; paths stay inside the root and the images have the size that was said; there are a train, a val and a test
    split; records survive Arrow; the fingerprint is stable.

    Raises:
        AssertionError: it does not conform; the message names the first subjects that do not.
    """
    subjects = dataset.subjects
    name = dataset.name
    fault = next(dataset_faults(dataset), None)
    assert fault is None, f"{name}: {fault}"
    root = dataset.root.resolve()
    sampled = subjects[:: max(1, len(subjects) // 200)]
    wrong = (s.image for s in sampled if read_size(root / s.image) != (s.width, s.height))
    _none(name, "image of another size than was said", wrong)
    needed = {"train", "val"} - set(dataset.splits)
    assert not needed, f"{name}: no subject in split {', '.join(sorted(needed))}; it has {', '.join(dataset.splits)}"
    assert dataset.test_splits, f"{name}: no split whose name starts with test; it has {', '.join(dataset.splits)}"
    assert subjects_from_table(subjects_to_table(subjects)) == subjects, f"{name}: records change on their way to disk"
    again = Dataset(**{item.name: getattr(dataset, item.name) for item in fields(Dataset)})
    assert again.fingerprint == dataset.fingerprint, f"{name}: the fingerprint changes though nothing else does"


def _build(card: BaselineCard, inputs: Sequence[Input], options: Mapping[str, Any], seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build_from_card(card, _feature_dims(inputs), CATEGORIES, options)


def _feature_dims(inputs: Sequence[Input]) -> dict[str, int]:
    return {str(item.view): FEATURE_DIM for item in inputs if item.form != "geometry"}


def _joint(output: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _check_gradients(card: BaselineCard, baseline: nn.Module, batch: dict[str, Tensor]) -> None:
    baseline.train().zero_grad()
    _scalar(baseline(batch)).backward()  # type: ignore[no-untyped-call]
    without = [name for name, p in baseline.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without, f"{card.name}: no gradient reaches {', '.join(without[:SHOWN])}; DDP would wait for it for ever"


def _check_determinism(
    card: BaselineCard, inputs: Sequence[Input], options: Mapping[str, Any], batch: dict[str, Tensor]
) -> None:
    first, again, other = (_build(card, inputs, options, seed) for seed in (3, 3, 4))
    states = [built.state_dict() for built in (first, again, other)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0]), (
        f"{card.name}: two models of one seed differ; draw weights from torch's global generator alone"
    )
    assert any(not torch.equal(states[0][key], states[2][key]) for key in states[0]), (
        f"{card.name}: models of two seeds are equal; draw weights from torch's global generator"
    )
    other.load_state_dict(states[0])
    with torch.no_grad():
        outputs = [_joint(built.eval()(batch)) for built in (first, other)]
    assert torch.equal(*outputs), f"{card.name}: its state_dict does not hold all that h depends on"


def _check_ddp(card: BaselineCard, baseline: nn.Module, batch: dict[str, Tensor]) -> None:
    if dist.is_initialized():
        return _step_under_ddp(card, baseline, batch)
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{Path(folder) / 'store'}", rank=0, world_size=1)
        try:
            return _step_under_ddp(card, baseline, batch)
        finally:
            dist.destroy_process_group()


def _step_under_ddp(card: BaselineCard, baseline: nn.Module, batch: dict[str, Tensor]) -> None:
    model = nn.parallel.DistributedDataParallel(baseline.train())
    optimiser = torch.optim.SGD(model.parameters(), 0.01)
    try:
        for _ in range(2):  # the second forward pass finds parameters that the first left unused
            optimiser.zero_grad()
            _scalar(model(batch)).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    except RuntimeError as error:
        raise AssertionError(f"{card.name}: it does not train under DDP: {str(error).splitlines()[0]}") from error


def _scalar(output: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    """Something every output counts in, with another weight for each value."""
    parts = output if isinstance(output, tuple) else (output,)
    return sum(((part * torch.linspace(0.5, 1.5, part.numel()).view_as(part)).sum() for part in parts), torch.zeros(()))


def _none(name: str, what: str, where: Any) -> None:
    found = sorted(set(where))
    shown = ", ".join(map(str, found[:SHOWN]))
    assert not found, f"{name}: {len(found)} x {what}: {shown}"


__all__ = ["check_baseline", "check_dataset"]
