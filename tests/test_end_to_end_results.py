"""Which trials end to end a preview is compared with: the same settings on the same data, those trained alike."""

import json

import pytest

from ccim_ray.data_source import DataSource
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.end_to_end_results import end_to_end_results
from ccim_ray.plan import weight_digests
from ccim_ray.presets import default_experiment
from ccim_ray.storage import Storage, write_json
from ccim_ray.trial_folder import TrialResult
from search_spaces.heads import heads_space

WORLD = WorldSettings(images=300)
VIEWS = frozenset({"context", "body"})


@pytest.fixture
def storage(tmp_path):
    return Storage.open(str(tmp_path))


def source_of(storage, world=WORLD):
    return DataSource("confounded_scenes", storage.root / "world", world, None, storage, views=VIEWS)


def end_to_end(storage, *, world=WORLD, score=0.5, status="done", **changes):
    """Leave a trial in the storage as training it would, if not what it was trained for."""
    experiment = default_experiment("confounded_scenes", "smoke", world, trainable="all").with_changes(**changes)
    fingerprint = source_of(storage, world).fingerprint_of(VIEWS)
    folder = storage.trial(experiment.signature(fingerprint, weight_digests(experiment, None)))
    write_json(folder / "experiment.json", experiment.model_dump(mode="json"))
    write_json(folder / "result.json", TrialResult(status, {"test_do/accuracy": score}).as_dict())
    return folder


def found_in(storage):
    base = default_experiment("confounded_scenes", "smoke", WORLD)
    settings = heads_space([8, 16]).settings(base)
    return end_to_end_results(settings, storage.root / "trials", source_of(storage), None)


def test_settings_are_found_whatever_their_training_and_those_trained_alike_stand_together(storage):
    end_to_end(storage, deconfounder="none", seed=0, score=0.1)
    end_to_end(storage, deconfounder="none", seed=1, score=0.2)
    end_to_end(storage, dictionary__size=8, ccim__attention="additive", score=0.3)
    end_to_end(storage, dictionary__size=8, ccim__use_lambda=False, ccim__attention="additive", score=0.4)
    end_to_end(storage, deconfounder="none", epochs=7, learning_rate=1e-2, score=0.5)
    short, long = found_in(storage)
    scores = {
        setting: {seed: values["test_do/accuracy"] for seed, values in seeds.items()}
        for setting, seeds in short.results.items()
    }
    assert scores == {"vanilla": {0: 0.1, 1: 0.2}, "N=8 additive": {0: 0.3}, "N=8 w/o lambda": {0: 0.4}}
    assert list(long.results) == ["vanilla"]
    assert long.title == "7 epochs, batch size 64, learning rate 0.01"


def test_what_is_not_comparable_is_left_out(storage):
    end_to_end(storage, dictionary__size=32)  # no setting of the preview
    end_to_end(storage, deconfounder="backdoor")
    end_to_end(storage, deconfounder="none", status="diverged")
    end_to_end(storage, deconfounder="none", world=WorldSettings(images=300, bias=0.5))
    of_other_data = end_to_end(storage, deconfounder="projection")
    of_other_data.rename(of_other_data.with_name("0123456789abcdef"))
    of_other_version = end_to_end(storage, dictionary__size=16)
    values = json.loads((of_other_version / "experiment.json").read_text())
    write_json(of_other_version / "experiment.json", values | {"dropped_setting": 1})
    without_weights = end_to_end(storage, deconfounder="none", epochs=9)
    values = json.loads((without_weights / "experiment.json").read_text())
    values["trunks"]["body"] = {"arch": "resnet50", "weights": "imagenet"}
    write_json(without_weights / "experiment.json", values)
    unfinished = end_to_end(storage, dictionary__size=8)
    (unfinished / "result.json").unlink()
    head = storage.trial("head")
    write_json(
        head / "experiment.json", default_experiment("confounded_scenes", "smoke", WORLD).model_dump(mode="json")
    )
    write_json(head / "result.json", TrialResult("done", {"test_do/accuracy": 0.5}).as_dict())
    assert found_in(storage) == []
    assert len(list(storage.root.glob("trials/*/experiment.json"))) == 9
    assert json.loads((head / "experiment.json").read_text())["trainable"] == "head"
