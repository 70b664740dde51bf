"""A trial on real files, in one process and in two, and its model applied to the pictures again."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from plug_in_package import install_package
from safetensors.numpy import load_file

from ccim_ray.checkpoint import save_weights
from ccim_ray.confounders import ConfounderDictionary
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.datasets.confounded_scenes.world import write_world
from ccim_ray.datasets.images import UnreadableImage, crop_square
from ccim_ray.datasets.registry import load_dataset
from ccim_ray.deconfounders.registry import deconfounder_card
from ccim_ray.errors import RequestError
from ccim_ray.experiment import Experiment
from ccim_ray.journal import read_journal
from ccim_ray.perception.architectures import ViewRequest
from ccim_ray.perception.views import ViewMaker
from ccim_ray.perception.weights import load_backbone
from ccim_ray.prepared import TrialPaths, write_shard, write_subject_index
from ccim_ray.trained_model import load_trained
from ccim_ray.trial import build_recogniser, describe_model, run_trial
from ccim_ray.trial_folder import Trial, TrialResult, read_result

TRUNK = {"arch": "thin_resnet", "weights": "random"}
SETTINGS = {
    "head, CCIM": {"like": "caer_s", "deconfounder": "ccim"},
    "head, vanilla, several labels": {"like": "emotic", "deconfounder": "none", "loss": "weighted_mse"},
    "head, CCIM, frames of videos": {"like": "groupwalk", "loss": "soft_margin"},
    "head, back-door": {"like": "caer_s", "deconfounder": "backdoor", "dictionary__size": 6},
    "head, CLEF, several labels": {"like": "emotic", "deconfounder": "clef", "loss": "soft_margin"},
    "end to end, GroupDRO": {
        "like": "caer_s",
        "trainable": "all",
        "deconfounder": "group_dro",
        "dictionary__size": 6,
        "augmentation": "flip_colour",
    },
    "end to end, CCIM, several labels": {"like": "emotic", "trainable": "all", "ccim__attention": "additive"},
}


@pytest.fixture(scope="module")
def worlds(small_world, tmp_path_factory):
    roots = {"caer_s": small_world}
    for like in ("emotic", "groupwalk"):
        roots[like] = tmp_path_factory.mktemp(f"{like}_world")
        write_world(WorldSettings(like=like, images=60, image_size=64), roots[like])
    return roots


def prepare(root, folder, *, like, **changes):
    """Write everything that a trial needs under ``folder``; returns the trial and the dataset."""
    dataset = load_dataset("confounded_scenes", root)
    values = {
        "dataset": "confounded_scenes",
        "world": {"like": like, "images": 60, "image_size": 64},
        "trunks": {"context": TRUNK, "body": TRUNK},
        "backbone": TRUNK,
        "epochs": 2,
        "batch_size": 8,
    }
    experiment = Experiment.parse(values).with_changes(**changes)
    weights = "random" if experiment.trainable == "head" else None
    requests = {
        "context": ViewRequest("context", "thin_resnet", weights),
        "body": ViewRequest("body", "thin_resnet", weights),
        "masked": ViewRequest("masked_context", "thin_resnet", "random"),
    }
    ids = [subject.subject_id for subject in dataset.subjects]
    maker = ViewMaker(dataset.root, list(requests.values()), None, torch.device("cpu"))
    rows, reasons = maker.make(dataset.subjects, [0, 1, 2])
    write_subject_index(dataset, folder / "subjects.parquet")
    for name, request, array, why in zip(requests, requests.values(), rows, reasons, strict=True):
        write_shard(folder / name / f"shard-00000{request.suffix}", ids[:30], array[:30], why[:30])
        write_shard(folder / name / f"shard-00001{request.suffix}", ids[30:], array[30:], why[30:])
    in_train = [subject.split == "train" for subject in dataset.subjects]
    ConfounderDictionary.fit(rows[2][in_train], size=6).save(folder / "dictionary.safetensors")
    card = deconfounder_card(experiment.deconfounder)
    paths = TrialPaths(
        folder=str(folder / "trial"),
        subjects=str(folder / "subjects.parquet"),
        views={"context": str(folder / "context"), "body": str(folder / "body")},
        dictionary=str(folder / "dictionary.safetensors") if card.uses_dictionary else None,
        context=str(folder / "masked") if card.trains_with else None,
        context_inputs=card.trains_with,
    )
    return Trial(experiment, "signature", paths), dataset


@pytest.fixture(scope="module", params=SETTINGS)
def ended(request, worlds, tmp_path_factory):
    """A trial that was run, its dataset, and its result."""
    setting = SETTINGS[request.param]
    trial, dataset = prepare(worlds[setting["like"]], tmp_path_factory.mktemp("trial"), **setting)
    return trial, dataset, run_trial(trial)


def test_new_images_get_the_scores_that_the_trial_computed(ended):
    trial, dataset, _ = ended
    folder = Path(trial.paths.folder)
    model = load_trained(folder)
    logits = load_file(folder / "scores.safetensors")
    assert (model.categories, model.multi_label) == (dataset.categories, dataset.multi_label)
    for split in ("val", *dataset.test_splits):
        subjects = [subject for subject in dataset.subjects if subject.split == split]
        images = [dataset.root / subject.image for subject in subjects]
        scores_SK = model.predict(images, [subject.body_box for subject in subjects])
        if not dataset.multi_label:
            powers = np.exp(logits[split] - logits[split].max(1, keepdims=True))
            expected_SK = powers / powers.sum(1, keepdims=True)
        elif trial.experiment.loss == "weighted_mse":
            expected_SK = logits[split].clip(0, 1)
        else:
            expected_SK = 1 / (1 + np.exp(-logits[split]))
        assert scores_SK.dtype == np.float32
        np.testing.assert_allclose(scores_SK, expected_SK, atol=1e-5)
        assert np.ptp(scores_SK, axis=0).max() > 0


def test_the_result_is_written_last_and_read_back(ended):
    trial, dataset, result = ended
    folder = Path(trial.paths.folder)
    assert read_result(folder) == result
    assert (result.status, result.epochs) == ("done", 2)
    assert all(f"{split}/{dataset.metric}" in result.metrics for split in ("val", *dataset.test_splits))
    written = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    kept = {"best.safetensors", "scores.safetensors", "experiment.json", "categories.json", "journal.jsonl"}
    assert written.keys() == kept | {"result.json", "environment.json", ".lock"}
    assert written["result.json"] == max(written.values())


def test_a_trial_that_ended_is_not_run_again(ended):
    trial, _, result = ended
    folder = Path(trial.paths.folder)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert run_trial(trial, on_epoch=lambda epoch, metrics: pytest.fail("trained again")) == result
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_model_is_rebuilt_wherever_its_files_are_taken(ended, tmp_path):
    trial, dataset, _ = ended
    subject = dataset.subjects[0]
    here = load_trained(Path(trial.paths.folder)).predict([dataset.root / subject.image], [subject.body_box])
    for name in ("best.safetensors", "experiment.json", "categories.json"):
        shutil.copy(Path(trial.paths.folder) / name, tmp_path / name)
    torch.manual_seed(5)
    there = load_trained(tmp_path).predict([dataset.root / subject.image], [subject.body_box])
    np.testing.assert_array_equal(here, there)


@pytest.fixture
def trained(ended, tmp_path):
    """A copy of a trained model's folder, to damage."""
    shutil.copytree(ended[0].paths.folder, tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("ended", ["head, CCIM"], indirect=True)
@pytest.mark.parametrize("name", ["best.safetensors", "experiment.json", "categories.json"])
def test_a_missing_file_is_named(trained, name):
    (trained / name).unlink()
    with pytest.raises(RequestError, match=f"{trained} holds no trained model: {name}"):
        load_trained(trained)


@pytest.mark.parametrize("ended", ["head, CCIM"], indirect=True)
@pytest.mark.parametrize("name", ["best.safetensors", "experiment.json", "categories.json"])
def test_a_damaged_file_is_named(trained, name):
    (trained / name).write_bytes((trained / name).read_bytes()[:60])
    with pytest.raises(RequestError, match=name) as error:
        load_trained(trained)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("ended", ["head, CCIM"], indirect=True)
def test_boxes_and_images_that_cannot_be_used_are_told(ended, tmp_path):
    trial, dataset, _ = ended
    model = load_trained(Path(trial.paths.folder))
    image = dataset.root / dataset.subjects[0].image
    with pytest.raises(RequestError, match="does not lie in the image"):
        model.predict([image], [(70.0, 0.0, 90.0, 20.0)])
    with pytest.raises(UnreadableImage, match="missing image"):
        model.predict([tmp_path / "none.jpg"], [(0.0, 0.0, 9.0, 9.0)])
    with pytest.raises(ValueError, match="zip"):
        model.predict([image], [])


@pytest.mark.parametrize("ended", ["head, CCIM"], indirect=True)
def test_a_box_that_reaches_out_of_the_image_is_clipped(ended, tmp_path):
    model = load_trained(Path(ended[0].paths.folder))
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 80, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    inside = model.predict([tmp_path / "a.png"], [(40.0, 10.0, 80.0, 50.0)])
    np.testing.assert_array_equal(model.predict([tmp_path / "a.png"], [(40.0, 10.0, 95.0, 70.0)]), inside)


def test_without_a_face_box_the_upper_third_of_the_body_is_taken_for_the_face(tmp_path, monkeypatch):
    install_package(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    values = {"dataset": "caer_s", "baseline": "face_net", "trunks": {"face": TRUNK}, "backbone": TRUNK}
    experiment = Experiment.parse(values | {"deconfounder": "none"})
    recogniser = build_recogniser(experiment, 3, None).eval()
    describe_model(tmp_path, experiment, ("Anger", "Fear", "Sad"), multi_label=False)
    save_weights(tmp_path / "best.safetensors", recogniser)
    image_HWC = np.random.default_rng(0).integers(0, 256, (90, 80, 3), dtype=np.uint8)
    Image.fromarray(image_HWC).save(tmp_path / "a.png")

    found = load_trained(tmp_path).predict([tmp_path / "a.png"], [(10.0, 30.0, 50.0, 200.0)])
    backbone = load_backbone("thin_resnet", "random")
    face = torch.from_numpy(crop_square(image_HWC, (10.0, 30.0, 50.0, 50.0), 64))[None]
    with torch.no_grad():
        expected = recogniser({"face": backbone(backbone.normalise(face))}).logits_BK.softmax(1)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)


@pytest.mark.parametrize("ended", ["head, CCIM"], indirect=True)
def test_weights_of_another_model_are_told(trained):
    values = json.loads((trained / "experiment.json").read_text())
    values["ccim"]["output_dim"] += 1
    (trained / "experiment.json").write_text(json.dumps(values))
    with pytest.raises(RequestError, match="does not hold the model that experiment.json describes"):
        load_trained(trained)


@pytest.mark.parametrize("ended", ["head, CCIM"], indirect=True)
def test_pictures_that_cannot_be_decoded_leave_the_others_their_scores(ended, tmp_path):
    trial, dataset, _ = ended
    names = list(dict.fromkeys(subject.image for subject in dataset.subjects))[:3]
    shutil.copytree(dataset.root, tmp_path, dirs_exist_ok=True)
    (tmp_path / names[1]).write_bytes((tmp_path / names[1]).read_bytes()[:-200])
    subjects = [subject for subject in dataset.subjects if subject.image in names]
    model = load_trained(Path(trial.paths.folder), root=tmp_path)
    scores_SK, reasons = model.score(subjects)
    whole_SK, _ = load_trained(Path(trial.paths.folder), root=dataset.root).score(subjects)
    damaged = np.array([subject.image == names[1] for subject in subjects])
    assert reasons == ["truncated or damaged image" if one else None for one in damaged]
    np.testing.assert_allclose(scores_SK[~damaged], whole_SK[~damaged], atol=1e-6)
    with pytest.raises(UnreadableImage, match="truncated"):
        model.predict([tmp_path / names[1]], [(0.0, 0.0, 30.0, 30.0)])


class Killed(Exception):
    pass


def test_an_interrupted_trial_has_no_result_and_ends_equal(worlds, tmp_path):
    straight, _ = prepare(worlds["caer_s"], tmp_path / "straight", **SETTINGS["head, CCIM"])
    stopped, _ = prepare(worlds["caer_s"], tmp_path / "stopped", **SETTINGS["head, CCIM"])
    folder = Path(stopped.paths.folder)

    def stop(epoch, metrics):
        assert read_result(folder) is None
        raise Killed

    with pytest.raises(Killed):
        run_trial(stopped, on_epoch=stop)
    assert read_result(folder) is None
    resumed, expected = run_trial(stopped), run_trial(straight)
    assert resumed.metrics == expected.metrics
    for name in ("best.safetensors", "scores.safetensors"):
        assert (folder / name).read_bytes() == (Path(straight.paths.folder) / name).read_bytes()


def test_a_trial_that_diverges_is_recorded_as_such(worlds, tmp_path):
    trial, _ = prepare(worlds["caer_s"], tmp_path, learning_rate=1e20, **SETTINGS["head, CCIM"])
    result = run_trial(trial)
    assert result.status == "diverged"
    assert result.diverged_at_step is not None
    assert read_result(Path(trial.paths.folder)) == result


def test_unusable_pictures_are_left_out_of_the_trial(worlds, tmp_path):
    root = tmp_path / "world"
    shutil.copytree(worlds["caer_s"], root)
    subjects = load_dataset("confounded_scenes", root).subjects
    for split in ("train", "test_do"):
        picture = root / next(subject.image for subject in subjects if subject.split == split)
        picture.write_bytes(picture.read_bytes()[: picture.stat().st_size // 2])
    trial, _ = prepare(root, tmp_path / "inputs", **SETTINGS["head, CCIM"])
    assert run_trial(trial).status == "done"
    scores = load_file(Path(trial.paths.folder) / "scores.safetensors")
    for split, missing in (("val", 0), ("test_id", 0), ("test_do", 1)):
        assert len(scores[split]) == sum(subject.split == split for subject in subjects) - missing


def test_no_result_is_none(tmp_path):
    assert read_result(tmp_path) is None
    assert TrialResult("done").as_dict()["metrics"] == {}


DDP_PROCESS = """
import json, os, sys
import torch, torch.distributed as dist
from ccim_ray.experiment import Experiment
from ccim_ray.prepared import TrialPaths
from ccim_ray.training import Process
from ccim_ray.trial import run_trial
from ccim_ray.trial_folder import Trial

request, rank = json.loads(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=request["rendezvous"], rank=rank, world_size=2)
for trial in request["trials"]:
    def on_epoch(epoch, metrics, last=trial["killed_after"]):
        assert rank == 0
        if epoch == last:
            os._exit(9)
    folder = trial["paths"]["folder"] + ("-of-rank-1" if rank and trial["apart"] else "")
    paths = TrialPaths(**trial["paths"] | {"folder": folder})
    result = run_trial(Trial(Experiment.parse(trial["experiment"]), "s", paths), Process(rank, 2), on_epoch)
    assert result.status == trial["ends"], result
    dist.barrier()
dist.destroy_process_group()
"""


def in_two_processes(trial, *, killed_after=None, ends="done", apart=False):
    """A trial for run_in_two_processes: after which epoch rank 0 is killed, and whether rank 1 has its own folder."""
    return {
        "experiment": trial.experiment.model_dump(mode="json"),
        "paths": asdict(trial.paths),
        "killed_after": killed_after,
        "ends": ends,
        "apart": apart,
    }


def run_in_two_processes(folder, *trials):
    """Run the trials one after the other in one DDP group; exit statuses and stderr by rank."""
    request = {"rendezvous": f"file://{folder / 'rendezvous'}", "trials": trials}
    (folder / "rendezvous").unlink(missing_ok=True)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", DDP_PROCESS, json.dumps(request), str(rank)],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    complaints = [process.communicate(timeout=120)[1] for process in processes]
    return [process.returncode for process in processes], complaints


def losses(trial):
    return [line.metrics["train/loss"] for line in read_journal(Path(trial.paths.folder) / "journal.jsonl")]


def contents(trial):
    folder = Path(trial.paths.folder)
    return {name: (folder / name).read_bytes() for name in ("best.safetensors", "scores.safetensors")}


@pytest.mark.slow
def test_two_processes_train_one_model_and_resume_to_the_bit(worlds, tmp_path):
    setting = {"like": "caer_s", "trainable": "all", "epochs": 3, "batch_size": 12}
    alone, _ = prepare(worlds["caer_s"], tmp_path, **setting)

    def in_folder(name, **changes):
        paths = TrialPaths(**(asdict(alone.paths) | {"folder": str(tmp_path / name)}))
        return Trial(alone.experiment.with_changes(workers=2, **changes), "s", paths)

    straight, killed, diverging = in_folder("straight"), in_folder("killed"), in_folder("wild", learning_rate=1e20)
    statuses, complaints = run_in_two_processes(
        tmp_path,
        in_two_processes(straight, apart=True),
        in_two_processes(diverging, ends="diverged"),
        in_two_processes(killed, killed_after=0),
    )
    assert statuses[0] == 9, complaints[0]
    assert statuses[1] != 0
    assert read_result(Path(diverging.paths.folder)).status == "diverged"
    assert read_result(Path(killed.paths.folder)) is None
    assert len(losses(killed)) == 1
    assert not (tmp_path / "straight-of-rank-1").exists()

    statuses, complaints = run_in_two_processes(tmp_path, in_two_processes(killed))
    assert statuses == [0, 0], complaints
    assert losses(killed) == losses(straight)
    assert contents(killed) == contents(straight)
    result = read_result(Path(straight.paths.folder))
    assert read_result(Path(killed.paths.folder)).metrics == result.metrics
    assert (result.status, result.epochs) == ("done", 3)

    # Batch statistics and dropout differ from those of one process, the size of the loss does not.
    assert run_trial(alone).status == "done"
    ratios = np.divide(losses(straight), losses(alone))
    assert ((ratios > 1 / 3) & (ratios < 3)).all(), ratios
    assert losses(straight) != losses(alone)
