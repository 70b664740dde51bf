"""Another version of a package that brings a part of the model is another trial; our own models are named as before."""

from pathlib import Path

from plug_in_package import ENTRY_POINTS, install_package, lines_of

DECONFOUNDER = """
from ccim_ray.deconfounders.card import DeconfounderCard

TWICE = DeconfounderCard(name="twice", title="twice", module="other_package:Twice")
"""
PROGRAM = """
from pathlib import Path
from ccim_ray.experiment import Experiment
from ccim_ray.presets import default_experiment
from ccim_ray.resources import TrialResources
from ccim_ray.storage import Storage
from ccim_ray.sweep_request import SweepRequest
from search_spaces.baselines import baselines_space
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings

storage = Storage.open("{folder}/runs")
for baseline, deconfounder in (("face_net", "none"), ("emot_net", "twice"), ("emot_net", "none")):
    base = default_experiment("confounded_scenes", "smoke", WorldSettings(images=60), baseline)
    base = base.with_changes(deconfounder=deconfounder, dictionary__size=4)
    request = SweepRequest(baselines_space(), (base,), (0,), storage, "", TrialResources(1, 0))
    plan = request.plan()
    print(base.plug_ins(), base.signature("data", {{}}), plan.trials[0].trial.signature, request.sweep_id(plan))
"""


def named(folder: Path, version: str) -> list[list[str]]:
    """What package, signature, first trial and sweep of each experiment are, under this version of the package."""
    folder.mkdir()
    install_package(folder)
    with (folder / "other_package.py").open("a") as module:
        module.write(DECONFOUNDER)
    about = folder / "other_package-1.0.dist-info"
    (about / "METADATA").write_text(f"Name: other_package\nVersion: {version}\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS + "\n[ccim_ray.deconfounders]\ntwice = other_package:TWICE\n")
    return [line.rsplit(maxsplit=3) for line in lines_of(PROGRAM.format(folder=folder), folder)]


def test_the_version_of_a_plug_in_names_trial_and_sweep(tmp_path: Path) -> None:
    old, same, new = named(tmp_path / "1", "1.0"), named(tmp_path / "2", "1.0"), named(tmp_path / "3", "1.1")
    assert old == same
    model, deconfounder, ours = zip(old, new, strict=True)
    for before, after in (model, deconfounder):
        assert (before[0], after[0]) == ("{'other_package': '1.0'}", "{'other_package': '1.1'}")
        assert before[1] != after[1]
        assert before[3] != after[3]
    assert model[0][2] != model[1][2]
    assert ours[0] == ours[1]
    assert ours[0][0] == "{}"
