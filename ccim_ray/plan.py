"""What a list of experiments needs, and what of it is there already. Starts nothing, writes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ccim_ray.baselines.card import Input
from ccim_ray.baselines.registry import inputs_of
from ccim_ray.data_source import DataSource, data_source
from ccim_ray.datasets.dataset import AS_PUBLISHED, LoadOptions
from ccim_ray.deconfounders.registry import deconfounder_card
from ccim_ray.errors import RequestError
from ccim_ray.experiment import STAGE_VERSIONS, BackboneSettings, DictionarySettings, Experiment
from ccim_ray.perception.architectures import Output, View, ViewRequest, is_geometry
from ccim_ray.perception.weight_files import planned_digest
from ccim_ray.prepared import TrialPaths
from ccim_ray.storage import Storage, read_json, short_digest
from ccim_ray.trial_folder import Trial, read_result

SHARD_SUBJECTS = 128
"""Subjects in one shard: the unit of extraction, of resuming, and of progress."""


@dataclass(frozen=True)
class PlannedView:
    """One view of every subject, as a folder of shards; of ``subjects`` of them where not of all."""

    request: ViewRequest
    key: str
    folder: Path
    subjects: int | None = None


@dataclass(frozen=True)
class PlannedDictionary:
    """One dictionary, made from a view's features."""

    settings: DictionarySettings
    features: PlannedView
    key: str
    path: Path


@dataclass(frozen=True)
class PlannedTrial:
    """One trial of a setting and a seed."""

    setting: str
    trial: Trial
    state: str
    """"done", "diverged", "failed" (its reason in ``reason``), "stopped" (early, by a search), "started" or "new"."""
    reason: str | None = None

    @property
    def seed(self) -> int:
        """The experiment's seed."""
        return self.trial.experiment.seed

    @property
    def baseline(self) -> str:
        """The experiment's baseline."""
        return self.trial.experiment.baseline

    @property
    def is_open(self) -> bool:
        """Whether it still has to run; a failed trial is tried again, one that a search stopped early goes on."""
        return self.state not in ("done", "diverged")


@dataclass(frozen=True)
class Plan:
    """Everything a sweep will do, and where it will lie.

    ``missing_weights`` are files that the user has to import first; only a plan that is not to be run has any.
    """

    source: DataSource
    subjects: Path
    frames: Path
    views: tuple[PlannedView, ...]
    dictionaries: tuple[PlannedDictionary, ...]
    trials: tuple[PlannedTrial, ...]
    missing_weights: tuple[Path, ...] = ()

    def has_inputs(self) -> bool:
        """Whether everything that the trials learn from is there; some may have been deleted after training."""
        folders = [self.source.root, *(view.folder for view in self.views)]
        files = [self.subjects, *(dictionary.path for dictionary in self.dictionaries)]
        return all(folder.is_dir() for folder in folders) and all(file.is_file() for file in files)

    def only(
        self, views: tuple[PlannedView, ...], dictionaries: tuple[PlannedDictionary, ...], storage: Storage
    ) -> Plan:
        """Only what is needed for these views and dictionaries, and no trial."""
        source = replace(self.source, views=frozenset(planned.request.view for planned in views))
        subjects = storage.subjects(source.fingerprint)
        return Plan(source, subjects, self.frames, views, dictionaries, (), self.missing_weights)


def make_plan(
    settings: Sequence[tuple[str, Experiment]],
    seeds: tuple[int, ...],
    storage: Storage,
    data_root: Path | None,
    weights_dir: Path | None = None,
    options: LoadOptions = AS_PUBLISHED,
    source: DataSource | None = None,
    *,
    without_weights: bool = False,
) -> Plan:
    """Plan every named setting with every seed; all settings share one dataset.

    Args:
        source: of a plan made before, so that the dataset is not read again.
        without_weights: plan as far as that goes where weight files are missing, and name them.

    Raises RequestError where the dataset cannot be read, ``--data-root`` or, unless ``without_weights``, a weight file
    is missing, or a dictionary would be larger than the train split.
    """
    experiments = [experiment for _, experiment in settings]
    if source is None:
        source = data_source(experiments[0], storage, data_root, options, weights_dir, views_read(experiments))
    views: dict[str, PlannedView] = {}
    dictionaries: dict[str, PlannedDictionary] = {}
    trials = []
    missing: set[Path] | None = set() if without_weights else None

    def plan_view(view: View, backbone: BackboneSettings, output: Output | None) -> PlannedView:
        depth_model = str(options.depth_model) if view == "depth" and options.depth_model else None
        weights = backbone.weights if output else None
        request = ViewRequest(view, backbone.arch, weights, output or "features", depth_model)
        digest = planned_digest(backbone.arch, backbone.weights, weights_dir, missing) if output else None
        versions = [STAGE_VERSIONS["views"], STAGE_VERSIONS["features"] if output else None]
        data = source.fingerprint_of([view])
        key = short_digest([data, view, backbone.arch, digest, output, versions, SHARD_SUBJECTS])
        folder = storage.features(key) if output else storage.crops(key)
        return views.setdefault(key, PlannedView(request, key, folder))

    def plan_input(item: Input, experiment: Experiment) -> PlannedView:
        if is_geometry(item.view):
            # Regions are boxes in the context picture as its trunk takes it; the others do not depend on any. The
            # dictionary's backbone must not matter: an ablation that changes it reads the same geometry.
            own = next(iter(experiment.trunks.values()), experiment.backbone)
            return plan_view(item.view, experiment.trunks.get("context", own), None)
        output: Output = "map" if item.form == "map" else "features"
        return plan_view(item.view, experiment.trunks[item.view], output if experiment.trainable == "head" else None)

    def plan_context(experiment: Experiment) -> PlannedView:
        return plan_view(experiment.context_view, experiment.backbone, "features")

    def plan_dictionary(experiment: Experiment) -> PlannedDictionary:
        features = plan_context(experiment)
        chosen = experiment.dictionary
        key = short_digest([features.key, experiment.essence()["dictionary"], STAGE_VERSIONS["dictionary"]])
        path = storage.dictionary(key)
        return dictionaries.setdefault(key, PlannedDictionary(chosen, features, key, path))

    subjects = storage.subjects(source.fingerprint)
    for name, of_setting in settings:
        for seed in seeds:
            experiment = of_setting.with_changes(seed=seed)
            items = inputs_of(experiment.baseline, experiment.baseline_options)
            needed = {item.view: plan_input(item, experiment) for item in items}
            card = deconfounder_card(experiment.deconfounder)
            dictionary = plan_dictionary(experiment) if card.uses_dictionary else None
            data = source.fingerprint_of(needed)
            signature = experiment.signature(data, weight_digests(experiment, weights_dir, missing))
            paths = TrialPaths(
                folder=str(storage.trial(signature)),
                subjects=str(subjects),
                views={str(view): str(planned.folder) for view, planned in needed.items()},
                dictionary=str(dictionary.path) if dictionary else None,
                context=str(plan_context(experiment).folder) if card.trains_with else None,
                context_inputs=card.trains_with,
            )
            trial = Trial(experiment, signature, paths, str(weights_dir) if weights_dir else None)
            state, reason = trial_state(storage.trial(signature))
            trials.append(PlannedTrial(name, trial, state, reason))
    _check_sizes(source, dictionaries.values())
    made = (tuple(views.values()), tuple(dictionaries.values()), tuple(trials))
    return Plan(source, subjects, storage.frames, *made, tuple(sorted(missing or ())))


def views_read(experiments: Iterable[Experiment]) -> frozenset[View]:
    """Every view that some baseline of these experiments reads."""
    return frozenset(item.view for each in experiments for item in inputs_of(each.baseline, each.baseline_options))


def _check_sizes(source: DataSource, dictionaries: Iterable[PlannedDictionary]) -> None:
    """No dictionary can have more clusters than there are features to cluster."""
    sizes = [planned.settings.size for planned in dictionaries if planned.settings.source == "clusters"]
    if sizes and max(sizes) > source.train_subjects:
        raise RequestError(
            f"--sizes {max(sizes)}: a dictionary of {max(sizes)} prototypes needs at least {max(sizes)} context "
            f"features, and the train split has {source.train_subjects}; take a smaller size or more images"
        )


def trial_state(folder: Path) -> tuple[str, str | None]:
    """State of the trial in ``folder`` and, where it failed or diverged, why."""
    result = read_result(folder)
    if result:
        reason = f"loss not finite at step {result.diverged_at_step}" if result.status == "diverged" else None
        return result.status, reason
    failure = folder / "failure.json"
    if failure.exists():
        return "failed", str(_facts(failure, "reason")["reason"])
    stopped = folder / "stopped.json"
    if stopped.exists():
        facts = _facts(stopped, "epoch", "of")
        return "stopped", f"after epoch {facts['epoch']} of {facts['of']}"
    return ("started", None) if (folder / "checkpoint.pt").exists() else ("new", None)


def _facts(path: Path, *names: str) -> dict[str, object]:
    facts = read_json(path)
    if not isinstance(facts, dict) or not facts.keys() >= set(names):
        raise RequestError(f"{path} does not say {' and '.join(names)}; delete it and run again")
    return facts


def weight_digests(
    experiment: Experiment, weights_dir: Path | None, missing: set[Path] | None = None
) -> dict[str, str]:
    """Digest of every weight file that the experiment's result depends on; ``missing`` as of ``planned_digest``."""
    used = dict(experiment.trunks)
    if deconfounder_card(experiment.deconfounder).uses_context:
        used["backbone"] = experiment.backbone  # no view has that name
    return {name: planned_digest(of.arch, of.weights, weights_dir, missing) for name, of in used.items()}
