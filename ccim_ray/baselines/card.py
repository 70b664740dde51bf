"""What the platform must know of a baseline without building it. Knows no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from ccim_ray.errors import RequestError
from ccim_ray.perception.architectures import VIEWS, View, architecture, is_geometry
from ccim_ray.perception.weight_files import require_available

Form = Literal["pooled", "map", "geometry"]

TRAINING_SETTINGS = (
    "optimiser",
    "schedule",
    "step_epochs",
    "learning_rate",
    "weight_decay",
    "gradient_clip",
    "epochs",
    "batch_size",
    "augmentation",
    "patience",
    "modality_weight",
)
"""What a card may set of an ``Experiment``: how its literature trains, never on what or which."""


@dataclass(frozen=True)
class Input:
    """One view of a subject that a baseline reads, and the form in which it reads it.

    Attributes:
        view: what is prepared (``perception.architectures``).
        form: "pooled", the trunk's global average (B, D); "map", its last feature map (B, D, h, w); "geometry",
            the tensor itself, for views that have no trunk.
        trunk: (architecture, weights) of the literature's own trunk, for training end to end.
        frozen_trunk: the one whose features are extracted once for the head, where the literature's is trained from
            scratch. None: the same.

    Raises:
        ValueError: no such view, form, architecture or weights, or a trunk of geometry, or none of a picture.
    """

    view: View
    form: Form
    trunk: tuple[str, str] | None = None
    frozen_trunk: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        if self.view not in VIEWS:
            raise ValueError(f"there is no view {self.view!r}; choose one of {', '.join(VIEWS)}")
        if self.form not in get_args(Form):
            raise ValueError(f"{self.view}: there is no form {self.form!r}; choose one of {', '.join(get_args(Form))}")
        if is_geometry(self.view) != (self.form == "geometry") or (self.form == "geometry") == bool(self.trunk):
            raise ValueError(f"{self.view} as {self.form} with trunk {self.trunk}: geometry, and only it, has no trunk")
        for trunk in filter(None, (self.trunk, self.frozen_trunk)):
            try:
                require_available(architecture(trunk[0]).name, trunk[1])
            except RequestError as error:
                raise ValueError(f"{self.view}: {error}") from error

    def trunk_for(self, trainable: str) -> tuple[str, str] | None:
        """(architecture, weights) to use for "head" or "all"."""
        return self.frozen_trunk or self.trunk if trainable == "head" else self.trunk


@dataclass(frozen=True, kw_only=True)
class BaselineCard:
    """A baseline, as a plug-in describes it.

    Attributes:
        name: as given to ``--baseline``.
        title: as the paper's tables print it.
        module: "package.module:Class"; called with (feature_dims by view, num_categories, **options), it gives a
            torch module with ``joint_dim`` that maps features by view to h (B, joint_dim).
        inputs: what it reads, given all options; raises RequestError for a value that an option cannot have.
        options: its options with their defaults.
        optional_views: the options with which it reads a view that not every dataset has; taken where the data have
            that view, unless told otherwise.
        training: settings of ``Experiment`` from the literature, for real datasets; of TRAINING_SETTINGS.
        losses: loss for a dataset; elsewhere cross-entropy, or soft margin where several categories may hold.
        approximate: what is not known of the published model; empty where it is built as published.

    Raises:
        ValueError: ``training`` sets what a baseline does not decide.
    """

    name: str
    title: str
    module: str
    inputs: Callable[[Mapping[str, Any]], tuple[Input, ...]]
    options: Mapping[str, Any] = field(default_factory=dict)
    optional_views: Mapping[View, Mapping[str, Any]] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    losses: Mapping[str, str] = field(default_factory=dict)
    approximate: str = ""

    def __post_init__(self) -> None:
        wrong = next((key for key in self.training if key not in TRAINING_SETTINGS), None)
        if wrong:
            known = ", ".join(TRAINING_SETTINGS)
            raise ValueError(f"{self.name}: training cannot set {wrong!r}, only {known}")
