"""The frozen, validated description of one trial, and the signature that names it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ccim_ray.baselines.registry import BASELINES
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.deconfounders.registry import DECONFOUNDERS, deconfounder_card
from ccim_ray.errors import RequestError
from ccim_ray.paper import ATTENTION_DIM, OUTPUT_DIM
from ccim_ray.storage import short_digest

STAGE_VERSIONS = {"world": 1, "detection": 1, "views": 1, "features": 1, "dictionary": 2, "training": 2}
"""Raised by hand when a stage's numbers change, so that what the old code made is not taken for the new."""

Arch = Literal["resnet18", "resnet50", "resnet152", "vgg16", "thin_resnet", "caer_face", "caer_context", "depth_cnn"]
Augmentation = Literal["none", "flip", "flip_colour"]
Weights = Literal["places365", "imagenet", "random", "scenes", "objects", "bodies"]


class Settings(BaseModel):
    """Base of all settings: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class BackboneSettings(Settings):
    """A pre-trained convolutional network and where its weights come from."""

    arch: Arch
    weights: Weights


class CcimSettings(Settings):
    """CCIM as in Eq. 4-7 of the paper."""

    attention: Literal["dot_product", "additive"] = "dot_product"
    use_lambda: bool = True
    use_prior: bool = True
    context_weights: Literal["paper", "renormalised"] = "paper"
    """``renormalised`` divides lambda_i P(z_i) of Eq. 5 by its sum over i: a control that the paper does not have."""
    output_dim: int = Field(default=OUTPUT_DIM, ge=1)
    attention_dim: int = Field(default=ATTENTION_DIM, ge=1)


class DictionarySettings(Settings):
    """The confounder dictionary Z."""

    size: int = Field(default=256, ge=1)
    source: Literal["clusters", "random"] = "clusters"
    prior: Literal["counts", "shuffled", "uniform"] = "counts"
    """P(z) of clusters: their shares of the samples; the same shares dealt to other clusters, by the seed; or 1/N."""
    pca_components: int = Field(default=256, ge=1)
    seed: int = Field(default=0, ge=0)


class Experiment(Settings):
    """Everything that decides the result of one trial."""

    dataset: str
    world: WorldSettings | None = None
    subject_limit: int | None = Field(default=None, ge=8)
    """At most this many subjects a split, chosen by a hash of their ids; None takes all."""

    baseline: str = "emot_net"
    baseline_options: dict[str, bool | int | float | str] = {}
    trunks: dict[str, BackboneSettings]
    """The backbone of every picture view that the baseline reads."""
    trainable: Literal["head", "all"] = "head"

    deconfounder: str = "ccim"
    """Name of one of ``deconfounders.registry``. ``projection`` is the control of CCIM: W_h h of Eq. 4 without
    W_g E[g], the same layers but the intervention."""
    ccim: CcimSettings = CcimSettings()
    dictionary: DictionarySettings = DictionarySettings()
    backbone: BackboneSettings
    """phi of section 3.3, which turns masked context pictures into the features that are clustered."""
    masking: Literal["subject", "none"] = "subject"

    loss: Literal["cross_entropy", "weighted_mse", "soft_margin"] = "cross_entropy"
    modality_weight: float = Field(default=0.0, ge=0)
    """Weight of the multiplicative loss over the modalities' own predictions, where the baseline has them."""
    optimiser: Literal["adamw", "adam", "sgd"] = "adamw"
    schedule: Literal["one_cycle", "step", "constant"] = "one_cycle"
    step_epochs: int = Field(default=7, ge=1)
    """Epochs after which the schedule "step" takes a tenth of the learning rate."""
    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    gradient_clip: float = Field(default=5.0, gt=0)
    epochs: int = Field(default=15, ge=1)
    batch_size: int = Field(default=256, ge=2)
    augmentation: Augmentation = "flip"
    """Of pictures, hence only end to end."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after this many epochs without a better validation metric; None trains all epochs."""
    workers: int = Field(default=1, ge=1)
    """DDP world size. It changes batch statistics, hence results. The head needs one."""
    precision: Literal["auto", "float32", "tf32", "bfloat16"] = "auto"
    """Of training steps. bfloat16 autocasts the model but CCIM; "auto" does so on GPUs. tf32 is float32 whose matrix
    products and convolutions a GPU may round to TF32; on a CPU it is float32."""
    channels_last: bool = True
    """Memory order of the trunks' pictures and weights; numbers differ in the last digits."""
    compile: bool = False
    """torch.compile of the model; numbers differ in the last digits."""
    seed: int = Field(default=0, ge=0)

    @field_validator("deconfounder")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            deconfounder_card(name)
        except RequestError as error:
            raise ValueError(str(error)) from error
        return name

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        if (self.dataset == "confounded_scenes") != (self.world is not None):
            raise ValueError("world settings belong to the dataset confounded_scenes, and to no other")
        if self.trainable == "head" and self.workers != 1:
            raise ValueError("--workers-per-trial above 1 needs --trainable all: a head trains in one process")
        if self.batch_size < 2 * self.workers:
            raise ValueError(f"--batch-size {self.batch_size} leaves a worker of {self.workers} fewer than 2 samples")
        return self

    @property
    def context_view(self) -> Literal["masked_context", "context"]:
        """The pictures whose features are the context of section 3.3."""
        return "masked_context" if self.masking == "subject" else "context"

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Experiment:
        """Validate plain values. Raises RequestError that names the first wrong key, its value and the rule."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise RequestError(describe(error)) from error

    def with_changes(self, **changes: Any) -> Experiment:
        """A validated copy; a nested key is written with two underscores, as in ``dictionary__size=64``."""
        values = self.model_dump()
        for key, value in changes.items():
            *parents, last = key.split("__")
            target = values
            for parent in parents:
                if not isinstance(target.get(parent), dict):
                    raise RequestError(f"there is no setting {key.replace('__', '.')}")
                target = target[parent]
            target[last] = value
        return self.parse(values)

    def parameters(self) -> dict[str, str]:
        """Dotted keys and values as MLflow shows them."""
        flat: dict[str, str] = {"ccim.enabled": str(self.deconfounder == "ccim")}
        _flatten("", self.essence() | {"seed": self.seed}, flat)
        return flat

    def essence(self) -> dict[str, Any]:
        """What the result depends on: no setting of a deconfounder that is not used."""
        values = self.model_dump(mode="json")
        if self.deconfounder == "projection":
            values["ccim"] = {"output_dim": self.ccim.output_dim}
        elif self.deconfounder != "ccim":
            del values["ccim"]
        elif not self.ccim.use_lambda:
            del values["ccim"]["attention"], values["ccim"]["attention_dim"]
        card = deconfounder_card(self.deconfounder)
        if not card.uses_context:
            del values["backbone"], values["masking"]
        if not card.uses_dictionary:
            del values["dictionary"]
        elif self.dictionary.source == "random":
            del values["dictionary"]["pca_components"], values["dictionary"]["prior"]
        _leave_out_defaults(values)
        if self.trainable == "head":  # which has no pictures
            del values["augmentation"], values["channels_last"]
        return values

    def plug_ins(self) -> dict[str, str]:
        """Version by name of the installed packages whose code the model is built from, our own aside.

        A dataset's package is none of them: what it reads is in the data's fingerprint.
        """
        found = (BASELINES.package_of(self.baseline), DECONFOUNDERS.package_of(self.deconfounder))
        return dict(package for package in found if package)

    def signature(self, data_fingerprint: str, weight_digests: dict[str, str]) -> str:
        """16 hexadecimal digits that name this trial's folder and MLflow run, and decide whether it is done."""
        facts = {
            "experiment": self.essence(),
            "data": data_fingerprint,
            "weights": weight_digests,
            "versions": STAGE_VERSIONS,
        }
        plug_ins = self.plug_ins()
        return short_digest(facts | {"plug_ins": plug_ins} if plug_ins else facts)


_LATER_SETTINGS = {"ccim": {"context_weights": "paper"}, "dictionary": {"prior": "counts"}}
"""Left out of a signature where they have the value that all trials had before they were there."""


def _leave_out_defaults(values: dict[str, Any]) -> None:
    for group, settings in _LATER_SETTINGS.items():
        for name, default in settings.items():
            if values.get(group, {}).get(name) == default:
                del values[group][name]


_FLAGS = {
    "ccim.attention": "--attention",
    "ccim.attention_dim": "--attention-dim",
    "dictionary.size": "--sizes or --dictionary-size",
    "learning_rate": "--learning-rate",
    "seed": "--seeds",
    "weight_decay": "--weight-decay",
    "workers": "--workers-per-trial",
}


def describe(error: ValidationError) -> str:
    """One line for the first problem of a pydantic error, with the flag where it has another name."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    where = f"{where} ({_FLAGS[where]})" if where in _FLAGS else where
    message = str(first["msg"]).removeprefix("Value error, ")
    if message.startswith("--"):  # names its flag and what was found itself
        return message
    found = f" (found {first['input']!r})" if where else ""
    return f"{where + ': ' if where else ''}{message}{found}"


def _flatten(prefix: str, values: dict[str, Any], flat: dict[str, str]) -> None:
    for key, value in values.items():
        if isinstance(value, dict):
            _flatten(f"{prefix}{key}.", value, flat)
        else:
            flat[f"{prefix}{key}"] = str(value)
