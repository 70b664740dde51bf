"""Missing boxes of CAER-S are found over Ray Data, from files to trained-on views; the reference is torchvision."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from detector_files import MOBILENET, write_detector
from PIL import Image

from ccim_ray.datasets.caer_s import CATEGORIES, body_from_face
from ccim_ray.datasets.dataset import LoadOptions
from ccim_ray.errors import RequestError
from ccim_ray.experiment import Experiment
from ccim_ray.perception.detection_files import LEFT_OUT, NOT_FOUND, OTHER_PERSON, PlannedDetections, images_to_detect
from ccim_ray.pipeline.detection import detect_persons
from ccim_ray.pipeline.preparation import prepare
from ccim_ray.plan import make_plan
from ccim_ray.prepared import read_subject_index
from ccim_ray.rates import Rates
from ccim_ray.reports.plan_report import plan_rows
from ccim_ray.storage import Storage

pytestmark = pytest.mark.slow

SIZES = ((96, 72), (64, 80))
TRUNCATED = "train/Happy/0001.png"
WITHOUT_FACE = ("train/Fear/0001.png", "test/Sad/0002.png")
BY_USER = "test/Sad/0001.png"
USER_BOX = (5.0, 6.0, 40.0, 50.0)
WITH_DETECTOR = LoadOptions(detector=MOBILENET)


def write_caer_s(root):
    """One picture a category under train, two under test, with faces; some as the constants say."""
    generator = np.random.default_rng(11)
    faces = {"train": [], "test": []}
    for category, (part, count) in ((c, p) for c in CATEGORIES for p in (("train", 1), ("test", 2))):
        for number in range(1, count + 1):
            width, height = SIZES[number % 2]
            image = np.full((height, width, 3), generator.integers(0, 256, 3), np.uint8)
            image[20:50, 10:40] = generator.integers(0, 256, (30, 30, 3))
            path = root / "CAER-S" / part / category / f"{number:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
            relative = path.relative_to(root / "CAER-S").as_posix()
            x, y = (int(value) for value in generator.integers(5, 40, 2))
            if relative not in WITHOUT_FACE:
                faces[part].append(f"{relative},{CATEGORIES.index(category)},{x},{y},{x + 9},{y + 9}")
    for part, lines in faces.items():
        (root / f"{part}.txt").write_text("\n".join([*lines, ""]))
    row = ",".join(map(str, USER_BOX))
    (root / "body_boxes.csv").write_text(f"image,x1,y1,x2,y2\n{BY_USER},{row}\n")
    damaged = root / "CAER-S" / TRUNCATED
    damaged.write_bytes(damaged.read_bytes()[:-600])
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_caer_s(tmp_path_factory.mktemp("caer_s"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Folder of the detector's weights, and torchvision's network with them."""
    folder = tmp_path_factory.mktemp("weights")
    return folder, write_detector(folder)


@pytest.fixture
def storage(tmp_path):
    return Storage(tmp_path / "runs")


@pytest.fixture
def no_downloads(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def plan_of(data, storage, weights_dir, options=WITH_DETECTOR):
    trunk = {"arch": "thin_resnet", "weights": "scenes"}
    values = {
        "dataset": "caer_s",
        "trunks": {"context": trunk, "body": trunk},
        "backbone": trunk,
        "deconfounder": "none",
    }
    return make_plan([("vanilla", Experiment.parse(values))], (0,), storage, data, weights_dir, options)


def expected_box(network, path, face):
    """Box and score by the rule of the person around the face, by a loop over what torchvision finds in a picture."""
    with Image.open(path) as image:
        tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    with torch.no_grad():
        (found,) = network([tensor])
    persons = [
        (float(score), [float(value) for value in box])
        for box, score, label in zip(found["boxes"], found["scores"], found["labels"], strict=True)
        if label == 1 and score >= 0.5 and min(box[2] - box[0], box[3] - box[1]) >= 1
    ]
    if face:
        x, y = (face[0] + face[2]) / 2, (face[1] + face[3]) / 2
        around = [(s, b) for s, b in persons if b[0] <= x < b[2] and b[1] <= y < b[3]]
        if around:
            return max(around)[::-1]
    return max(((b[2] - b[0]) * (b[3] - b[1]), b, s) for s, b in persons)[1:] if persons else (None, None)


def test_from_files_without_boxes_to_views(data, weights, storage, cluster, capsys):
    folder, network = weights
    plan = plan_of(data, storage, folder)
    before = {subject.subject_id: subject for subject in plan.source.annotated.subjects}
    assert len(before) == 21
    assert not storage.root.exists()

    dataset = prepare(plan, storage, cluster, folder)
    found = {subject.subject_id: subject for subject in dataset.subjects}
    counts = dict.fromkeys(("found", "fell back", "left out"), 0)
    for name, subject in before.items():
        if name == BY_USER:
            assert (found[name].body_box, found[name].box_source) == (USER_BOX, "user")
            continue
        readable = name != TRUNCATED
        box, score = expected_box(network, data / subject.image, subject.face_box) if readable else (None, None)
        if name in found:
            assert found[name].box_score == (score and pytest.approx(score, abs=1e-4))
        if box:
            counts["found"] += 1
            assert found[name].box_source == f"{MOBILENET}@coco"
            assert found[name].body_box == pytest.approx(box, abs=0.05)
        elif subject.face_box:
            counts["fell back"] += 1
            assert found[name].box_source == "face"
            assert found[name].body_box == body_from_face(subject.face_box, subject.width, subject.height)
        else:
            counts["left out"] += 1
            assert name not in found
    assert min(counts["found"], counts["fell back"]) > 3, counts
    defects = dataset.defects.counts
    assert defects[NOT_FOUND] == counts["fell back"]
    assert defects.get(LEFT_OUT, 0) == counts["left out"]
    assert defects["truncated or damaged image"] == 1
    assert dataset.defects.examples["truncated or damaged image"] == [TRUNCATED]
    assert set(defects) <= {NOT_FOUND, LEFT_OUT, OTHER_PERSON, "truncated or damaged image"}
    printed = capsys.readouterr().out
    assert (
        f"{counts['found']} found by {MOBILENET}@coco, {counts['fell back']} fell back to the face, "
        f"{counts['left out']} left out; scores " in printed
    )
    scores = [subject.box_score for subject in found.values() if subject.box_score is not None]
    assert f"scores {min(scores):.2f} to {max(scores):.2f}, median {np.median(scores):.2f}" in printed
    stored = pq.read_table(plan.subjects, columns=["subject_id", "box_score"]).to_pylist()
    assert {row["subject_id"]: row["box_score"] for row in stored} == {
        name: subject.box_score for name, subject in found.items()
    }
    assert read_subject_index(plan.subjects).subject_ids == tuple(found)

    again = plan_of(data, storage, folder)
    assert {row.stage: row.to_do for row in plan_rows(again)}[f"detect ({MOBILENET}@coco)"] == "0"
    assert prepare(again, storage, cluster, folder).subjects == dataset.subjects
    assert "Looking for persons" not in capsys.readouterr().out


def test_exactly_the_missing_shards_are_made_again(data, weights, storage, cluster, tmp_path):
    folder, _ = weights
    source = plan_of(data, storage, folder).source
    planned = PlannedDetections(MOBILENET, tmp_path / "shards", images_to_detect(source.annotated)[:7], shard_size=2)

    def detect():
        detect_persons(planned, data, cluster, folder, Rates(tmp_path / "rates.json"))

    detect()
    paths = [planned.shard_path(number) for number in range(4)]
    assert sorted(planned.folder.iterdir()) == paths
    assert list(planned.read()) == list(planned.images)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}
    for path in (paths[1], paths[3]):
        path.unlink()
    with pytest.raises(RequestError, match="lacks 2 of 4 shards"):
        planned.read()
    detect()
    for path, (written, content) in before.items():
        assert path.read_bytes() == content
        assert (path.stat().st_mtime_ns != written) == (path in (paths[1], paths[3]))
    paths[2].write_bytes(paths[2].read_bytes()[:-50])
    with pytest.raises(RequestError, match=r"shard-00002\.parquet is damaged"):
        planned.read()
    with pytest.raises(RequestError, match="other pictures|not the 2 expected"):
        replace(planned, images=planned.images[::-1]).read()


def test_a_plan_needs_neither_detections_nor_torch(data, weights, storage):
    plan = plan_of(data, storage, weights[0])
    rows = {row.stage: row for row in plan_rows(plan)}
    row = rows[f"detect ({MOBILENET}@coco)"]
    assert (row.there, row.to_do, row.units) == ("0 pictures", "20", 20)
    assert rows["extract context (thin_resnet/scenes)"].to_do == "21"
    assert plan.source.train_subjects == 7
    assert not storage.root.exists()
    script = """
import sys
from pathlib import Path
from ccim_ray.command_line import CommonFlags
from ccim_ray.data_source import DataSource
from ccim_ray.storage import Storage
flags = CommonFlags(dataset="caer_s", data_root=Path(sys.argv[1]))
source = DataSource("caer_s", Path(sys.argv[1]), None, None, Storage(Path(sys.argv[2])), flags.load_options())
print(source.detections.detector, len(source.detections.images), source.fingerprint)
sys.exit("torch" in sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", script, str(data), str(storage.root)], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("fasterrcnn_resnet50_fpn 20 ")


def test_boxes_depend_on_the_detector_and_are_kept_when_only_the_split_changes(data, weights, storage, tmp_path):
    folder, _ = weights
    one = plan_of(data, storage, folder).source
    downloaded = plan_of(data, storage, tmp_path).source
    without = plan_of(data, storage, folder, LoadOptions()).source
    assert len({source.fingerprint for source in (one, downloaded, without)}) == 3
    assert one.detections.folder != downloaded.detections.folder
    assert without.detections is None
    assert without.dataset.defects.counts["no box"] == len(WITHOUT_FACE)

    split = tmp_path / "mine.csv"
    rows = [f"{subject.subject_id},{'val' if k % 3 else 'train'}" for k, subject in enumerate(one.annotated.subjects)]
    split.write_text("\n".join(["image,split", *rows, ""]))
    other_split = plan_of(data, storage, folder, replace(WITH_DETECTOR, split_file=split)).source
    assert other_split.fingerprint != one.fingerprint
    assert other_split.detections.folder == one.detections.folder


def test_with_a_box_for_everybody_neither_detector_nor_weights_are_needed(
    data, storage, cluster, tmp_path, no_downloads, capsys
):
    root = tmp_path / "boxed"
    write_caer_s(root)
    names = [subject.subject_id for subject in plan_of(data, storage, None).source.annotated.subjects]
    boxes = ",".join(map(str, USER_BOX))
    (root / "body_boxes.csv").write_text("\n".join(["image,x1,y1,x2,y2", *(f"{name},{boxes}" for name in names), ""]))
    plan = plan_of(root, storage, tmp_path)
    assert plan.source.detections is None
    assert plan.source.fingerprint == plan_of(root, storage, tmp_path, LoadOptions()).source.fingerprint
    assert not any(row.stage.startswith("detect") for row in plan_rows(plan))
    dataset = prepare(plan, storage, cluster, tmp_path)
    assert {(subject.body_box, subject.box_source) for subject in dataset.subjects} == {(USER_BOX, "user")}
    assert "found by" not in capsys.readouterr().out


def test_without_weights_nothing_is_put_in_their_place(data, storage, cluster, tmp_path, no_downloads):
    plan = plan_of(data, storage, tmp_path)
    with pytest.raises(
        RequestError, match=r"could not be downloaded.*jobs/import_weights\.py.*--detector none"
    ) as error:
        prepare(plan, storage, cluster, tmp_path)
    assert "\n" not in str(error.value)
    assert not list(storage.root.rglob("*.parquet"))
    with pytest.raises(RequestError, match="lacks 1 of 1 shards"):
        _ = plan.source.dataset
