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
    """A space over a base experiment, with seeds, and where everything goes."""

    space: Space
    base: Experiment
    seeds: tuple[int, ...]
    storage: Storage
    tracking_uri: str
    resources: TrialResources
    data_root: Path | None = None
    load_options: LoadOptions = AS_PUBLISHED
    weights_dir: Path | None = None
    command: str = ""

    def plan(self) -> Plan:
        """Raises RequestError where the dataset, a weight file or a setting is wrong."""
        settings = self.space.settings(self.base)
        return make_plan(settings, self.seeds, self.storage, self.data_root, self.weights_dir, self.load_options)

    def sweep_id(self, plan: Plan) -> str:
        """Sweeps of one space over one base experiment and dataset are one sweep, whatever values they vary.

        Other weights or stage versions make another sweep: one table never mixes them.
        """
        essence = self.base.with_changes(seed=0).essence()
        weights = weight_digests(self.base, self.weights_dir)
        return short_digest([self.space.name, essence, plan.source.fingerprint, weights, STAGE_VERSIONS])
