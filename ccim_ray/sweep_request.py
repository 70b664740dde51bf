"""What a job that trains asks for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ccim_ray.datasets.dataset import AS_PUBLISHED, LoadOptions
from ccim_ray.experiment import STAGE_VERSIONS, Experiment
from ccim_ray.plan import Plan, make_plan, weight_digests
from ccim_ray.resources import TrialResources
from ccim_ray.space import Space
from ccim_ray.storage import Storage, short_digest


@dataclass(frozen=True)
class SweepRequest:
    """A space over one base experiment for each baseline, with seeds, and where everything goes."""

    space: Space
    bases: tuple[Experiment, ...]
    seeds: tuple[int, ...]
    storage: Storage
    tracking_uri: str
    resources: TrialResources
    data_root: Path | None = None
    load_options: LoadOptions = AS_PUBLISHED
    weights_dir: Path | None = None
    command: str = ""

    @property
    def dataset(self) -> str:
        """The dataset that all bases share."""
        return self.bases[0].dataset

    @property
    def workers(self) -> int:
        """Processes of a trial, the same for all bases."""
        return self.bases[0].workers

    def plan(self, *, without_weights: bool = False) -> Plan:
        """Raises RequestError where the dataset, a setting or, unless ``without_weights``, a weight file is wrong."""
        settings = [setting for base in self.bases for setting in self.space.settings(base).items()]
        where = (self.storage, self.data_root, self.weights_dir, self.load_options)
        return make_plan(settings, self.seeds, *where, without_weights=without_weights)

    def parameters(self) -> dict[str, str]:
        """What all bases share, as MLflow shows it."""
        first, *others = (base.parameters() for base in self.bases)
        return {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}

    def plug_ins(self) -> dict[str, str]:
        """Version by name of the packages of others that bring a part of a base's model."""
        return {name: version for base in self.bases for name, version in base.plug_ins().items()}

    def sweep_id(self, plan: Plan) -> str:
        """Sweeps of one space over the same base experiments and dataset are one sweep, whatever values they vary.

        Other weights, stage versions or versions of plug-ins make another sweep: one table never mixes them.
        """
        essences = [base.with_changes(seed=0).essence() for base in self.bases]
        weights = [weight_digests(base, self.weights_dir) for base in self.bases]
        plug_ins = self.plug_ins()
        facts = [self.space.name, essences, plan.source.fingerprint, weights, STAGE_VERSIONS]
        return short_digest([*facts, plug_ins] if plug_ins else facts)
