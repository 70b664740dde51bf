"""Conformance suites for plug-ins: what the platform relies on in a baseline and in a dataset.

Call them from a test of your own package; each raises AssertionError in one line that says what is wrong.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ccim_ray.baselines.card import BaselineCard, Input
from ccim_ray.baselines.registry import checked_options
from ccim_ray.datasets.dataset import Dataset
from ccim_ray.datasets.images import read_size
from ccim_ray.datasets.subject import Subject, clip_box, subjects_from_table, subjects_to_table
from ccim_ray.perception.architectures import is_geometry
from ccim_ray.perception.geometry import SHAPES

CATEGORIES = 5
FEATURE_DIM = 32
MAP_SIDE = 4
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
    inputs = card.inputs(chosen)
    assert inputs, f"{card.name}: it declares no input"
    views = [item.view for item in inputs]
    assert len(set(views)) == len(views), f"{card.name}: it declares a view twice: {views}"
    baseline = _build(card, inputs, chosen, seed=0)
    joint_dim = getattr(baseline, "joint_dim", None)
    assert isinstance(joint_dim, int), f"{card.name}: joint_dim is {joint_dim!r}, a whole number expected"
    batch = _batch(inputs, subjects=8)
    _check_shapes(card, baseline, batch, joint_dim)
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
    assert subjects, f"{name}: no subject"
    assert len(set(dataset.categories)) == len(dataset.categories) > 1, f"{name}: categories {dataset.categories}"
    ids = [subject.subject_id for subject in subjects]
    _none(name, "subject_id twice", {i for i in ids if ids.count(i) > 1} if len(set(ids)) < len(ids) else ())
    known = set(dataset.categories)
    _none(name, "unknown label", (s.subject_id for s in subjects if not set(s.labels) <= known))
    _none(name, "no label", (s.subject_id for s in subjects if not s.labels))
    if not dataset.multi_label:
        _none(name, "several labels in a single-label dataset", (s.subject_id for s in subjects if len(s.labels) != 1))
    _none(name, "box that is not clipped to its image", (s.subject_id for s in subjects if not _boxes_fit(s)))
    root = dataset.root.resolve()
    _none(name, "path that leaves the root", (s.image for s in subjects if not _inside(root, s.image)))
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
    from ccim_ray.baselines.registry import build_from_card

    torch.manual_seed(seed)
    feature_dims = {str(item.view): FEATURE_DIM for item in inputs if item.form != "geometry"}
    return build_from_card(card, feature_dims, CATEGORIES, options)


def _batch(inputs: Sequence[Input], subjects: int) -> dict[str, Tensor]:
    """What a recogniser hands the baseline: positive features and maps, as behind a ReLU, and geometry in 0..1."""
    generator = torch.Generator().manual_seed(1)
    batch: dict[str, Tensor] = {}
    for item in inputs:
        if is_geometry(item.view):
            rows = torch.rand(subjects, *SHAPES[item.view], generator=generator)
            if item.view in ("agents", "regions"):
                rows[..., 2:4] = rows[..., :2] + 0.1 + (0.9 - rows[..., :2]).clamp(min=0) * rows[..., 2:4]
            if item.view in ("agents", "keypoints"):
                rows[..., -1] = 1.0
            batch[item.view] = rows
        elif item.form == "map":
            batch[item.view] = torch.rand(subjects, FEATURE_DIM, MAP_SIDE, MAP_SIDE, generator=generator)
        else:
            batch[item.view] = torch.rand(subjects, FEATURE_DIM, generator=generator)
    return batch


def _joint(output: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _check_shapes(card: BaselineCard, baseline: nn.Module, batch: dict[str, Tensor], joint_dim: int) -> None:
    baseline.eval()
    with torch.no_grad():
        for size in (8, 1):
            output = baseline({view: rows[:size] for view, rows in batch.items()})
            found = tuple(_joint(output).shape)
            assert found == (size, joint_dim), f"{card.name}: h is {found} for {size} subjects, {(size, joint_dim)} due"
            assert _joint(output).isfinite().all(), f"{card.name}: h of random features is not finite"
            if isinstance(output, tuple):
                modalities = tuple(output[1].shape)
                expected = (size, modalities[1] if len(modalities) > 1 else 0, CATEGORIES)
                assert modalities == expected, f"{card.name}: modality logits are {modalities}, (B, M, K) expected"


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


def _boxes_fit(subject: Subject) -> bool:
    boxes = [subject.body_box, *subject.other_boxes, *([subject.face_box] if subject.face_box else [])]
    return all(clip_box(box, subject.width, subject.height) == tuple(box) for box in boxes)


def _inside(root: Path, image: str) -> bool:
    return Path(os.path.realpath(root / image)).is_relative_to(root)


def _none(name: str, what: str, where: Any) -> None:
    found = sorted(set(where))
    shown = ", ".join(map(str, found[:SHOWN]))
    assert not found, f"{name}: {len(found)} x {what}: {shown}"


__all__ = ["check_baseline", "check_dataset"]
