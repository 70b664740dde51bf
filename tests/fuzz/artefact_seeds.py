"""Sound weights, settings and cached artefacts as the package writes them, and what reads them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from fuzz.annotation_seeds import caer_s_folder
from safetensors.torch import save

from ccim_ray.checkpoint import Checkpoint, load_checkpoint, load_weights, save_checkpoint, save_weights
from ccim_ray.chosen_model import ChosenModel
from ccim_ray.confounders import ConfounderDictionary
from ccim_ray.datasets.caer_s import load_caer_s
from ccim_ray.datasets.dataset import LoadOptions
from ccim_ray.journal import Journal, read_journal
from ccim_ray.logged_sweeps import collect_sweeps
from ccim_ray.object_store import _unpack
from ccim_ray.perception.detection_files import PictureDetections, PlannedDetections, write_detections
from ccim_ray.perception.imported_weights import import_weights
from ccim_ray.perception.person_matching import Persons
from ccim_ray.plan import trial_state
from ccim_ray.prepared import read_reasons, read_shards, read_subject_index, write_shard, write_subject_index
from ccim_ray.presets import default_experiment
from ccim_ray.rates import Rates
from ccim_ray.reports.tables import constant_row
from ccim_ray.results import LedgerEntry, collect, update_ledger
from ccim_ray.space import Space
from ccim_ray.storage import write_json
from ccim_ray.sweep_tags import constant_tags, description_tags
from ccim_ray.tracking import LoggedExperiment, LoggedRun
from ccim_ray.tracking.model import model_data
from ccim_ray.trial_folder import TrialResult, read_result

Made = tuple[tuple[bytes, ...], Any]
IDS = tuple(f"subject-{number}" for number in range(6))


def _import(root: Path, name: str) -> Any:
    (root / "weights").mkdir()

    def read(data: bytes) -> None:
        (root / name).write_bytes(data)
        import_weights(root / name, "resnet18", "places365", root / "weights")

    return read


def _some_weights() -> dict[str, torch.Tensor]:
    """Names and shapes of a network's first and last layers: a whole one is 45 MB."""
    shapes = {"conv1.weight": (64, 3, 7, 7), "bn1.weight": (64,), "bn1.bias": (64,), "fc.bias": (365,)}
    return {name: torch.full(shape, 0.5) for name, shape in shapes.items()}


def imported_safetensors(root: Path) -> Made:
    tiny = {"conv1.weight": torch.ones(2, 2), "module.fc.bias": torch.ones(2, dtype=torch.float16)}
    seeds = save(_some_weights()), save(tiny, {"format": "pt"}), save({"0.weight": torch.ones(3)})
    return seeds, _import(root, "source.safetensors")


def imported_pickle(root: Path) -> Made:
    state = {"module.conv1.weight": torch.ones(2, 2), "module.fc.bias": torch.ones(2)}
    checkpoint = {"arch": "resnet18", "epoch": 3, "state_dict": state}
    seeds = []
    for new_format in (True, False):
        for content in (state, checkpoint, {"0.weight": torch.ones(2, dtype=torch.int8)}):
            target = io.BytesIO()
            torch.save(content, target, _use_new_zipfile_serialization=new_format)
            seeds.append(target.getvalue())
    return tuple(seeds), _import(root, "source.pth")


def experiments(root: Path) -> Made:
    made = [
        default_experiment("caer_s", "quick", None),
        default_experiment("emotic", "quick", None, "emoticon", "all").with_changes(deconfounder="none"),
    ]
    seeds = tuple(json.dumps(each.model_dump(mode="json")).encode() for each in made)

    def read(data: bytes) -> None:
        experiment = ChosenModel("the model", {"experiment.json": data}).experiment
        experiment.parameters()
        experiment.signature("data", {})

    return seeds, read


def categories(root: Path) -> Made:
    seed = json.dumps({"names": ["Anger", "Fear"], "multi_label": False}).encode()
    return (seed,), lambda data: ChosenModel("the model", {"categories.json": data}).categories


def subject_index(root: Path) -> Made:
    caer_s_folder(root)
    dataset = load_caer_s(root, LoadOptions(keep_unlocated=True))
    path = root / "subjects.parquet"
    write_subject_index(dataset, path)
    whole = pq.read_table(path)
    others = []
    for change in ({"metadata": {"ccim_ray": '{"categories": ["Anger"], "multi_label": false}'}}, {"drop": ["labels"]}):
        table = (
            whole.replace_schema_metadata(change["metadata"]) if "metadata" in change else whole.drop(change["drop"])
        )  # type: ignore[arg-type]
        others.append(_parquet(table))
    numbers = whole.set_column(0, "subject_id", pa.array(range(len(whole))))

    def read(data: bytes) -> None:
        path.write_bytes(data)
        read_subject_index(path)

    return (path.read_bytes(), _parquet(whole), *others, _parquet(numbers)), read


def _parquet(table: pa.Table) -> bytes:
    target = io.BytesIO()
    pq.write_table(table, target)
    return target.getvalue()


def _shard(root: Path, suffix: str, rows: np.ndarray) -> Made:
    path = root / "view" / f"shard-00000{suffix}"
    path.parent.mkdir()
    seeds = []
    for reasons in ([None] * 6, ["missing image", *[None] * 5]):
        write_shard(path, list(IDS), rows, reasons)
        seeds.append(path.read_bytes())
    flat = pa.table({"subject_id": list(IDS), "reason": [None] * 6, "rows": [1.0] * 6})
    table = pq.read_table(path) if suffix == ".parquet" else pa.ipc.open_file(pa.BufferReader(seeds[0])).read_all()
    bare = table.replace_schema_metadata(None)  # no digest, as an older version wrote it, or somebody else
    for other in (flat, bare, flat.drop(["reason"]), table.slice(0, 0), table.slice(0, 3)):
        if suffix == ".parquet":
            seeds.append(_parquet(other))
        else:
            target = io.BytesIO()
            with pa.ipc.new_file(target, other.schema) as writer:
                writer.write_table(other)
            seeds.append(target.getvalue())

    def read(data: bytes) -> None:
        path.unlink()  # a memory map of the last input may still be open
        path.write_bytes(data)
        read_reasons(path.parent, IDS)
        read_shards(path.parent, IDS).take(np.arange(6)).sum()

    return tuple(seeds), read


def feature_shard(root: Path) -> Made:
    return _shard(root, ".parquet", np.arange(48, dtype=np.float32).reshape(6, 8))


def picture_shard(root: Path) -> Made:
    return _shard(root, ".arrow", np.arange(6 * 4 * 4 * 3, dtype=np.uint8).reshape(6, 4, 4, 3))


def detections(root: Path) -> Made:
    planned = PlannedDetections("a detector", root, ("a.png", "b.png"))
    path = planned.shard_path(0)
    boxes_P4, scores_P = np.array([[1, 2, 3, 4], [5, 6, 9, 9]], np.float32), np.array([0.9, 0.8], np.float32)
    joints_PJ3 = np.zeros((2, 17, 3), np.float32)
    found = [PictureDetections(Persons(boxes_P4, scores_P, joints)) for joints in (None, joints_PJ3)]
    write_detections(path, planned.images, found)
    whole = pq.read_table(path)
    cut = pa.table({**{name: whole[name] for name in whole.column_names}, "boxes": [[1.0, 2.0, 3.0], [1.0]]})
    uneven = pa.table({**{name: whole[name] for name in whole.column_names}, "scores": [["a"], [None]]})

    def read(data: bytes) -> None:
        path.write_bytes(data)
        planned.read()

    return (path.read_bytes(), _parquet(whole), _parquet(cut), _parquet(uneven)), read


def dictionary(root: Path) -> Made:
    path = root / "dictionary.safetensors"
    ConfounderDictionary.random(4, 8).save(path)
    whole = path.read_bytes()
    bare = save({"prototypes_ND": torch.ones(2, 3), "prior_N": torch.full((2,), 0.5)}, _metadata_of(path))

    def read(data: bytes) -> None:
        path.write_bytes(data)
        ConfounderDictionary.load(path)

    return (whole, bare), read


def _metadata_of(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return {name: text for name, text in file.metadata().items() if name == "confounder_dictionary"}


def journal(root: Path) -> Made:
    path = root / "journal.jsonl"
    with Journal(path) as written:
        for step in range(3):
            written.append(step, {"train/loss": 1.0 / (step + 1), "val/accuracy": float("nan")})

    def read(data: bytes) -> None:
        path.write_bytes(data)
        read_journal(path)
        Journal(path).close()

    return (path.read_bytes(),), read


def _network() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    return model, optimiser


def checkpoint(root: Path) -> Made:
    path = root / "checkpoint.pt"
    model, optimiser = _network()
    save_checkpoint(path, Checkpoint(epoch=3, best_value=0.5), model, optimiser)
    old = io.BytesIO()
    content = {"progress": {"epoch": 1}, "model": model.state_dict(), "optimiser": optimiser.state_dict()}
    torch.save(content, old, _use_new_zipfile_serialization=False)

    def read(data: bytes) -> None:
        path.write_bytes(data)
        load_checkpoint(path, *_network())

    return (path.read_bytes(), old.getvalue()), read


def best_weights(root: Path) -> Made:
    path = root / "best.safetensors"
    save_weights(path, _network()[0])

    def read(data: bytes) -> None:
        path.write_bytes(data)
        load_weights(path, _network()[0])

    return (path.read_bytes(), save(_network()[0].state_dict())), read


ENDS = {
    "result.json": TrialResult("done", {"val/accuracy": 0.5, "test_do/accuracy": 0.25}, 3, 5, None, 1.5).as_dict(),
    "failure.json": {"reason": "CUDA out of memory"},
    "stopped.json": {"epoch": 3, "of": 15},
}


def ended(root: Path, name: str) -> Made:
    def read(data: bytes) -> None:
        (root / name).write_bytes(data)
        trial_state(root)
        result = read_result(root)
        if result and result.status == "done":
            collect([LedgerEntry("emot_net", "vanilla", None, {0: root})])
            sum(result.metrics.values())

    return (json.dumps(ENDS[name]).encode(),), read


def ledger(root: Path) -> Made:
    path = root / "ledger.json"
    entry = {
        "baseline": "emot_net",
        "setting": "CCIM N=64",
        "axis": 64,
        "place": 0,
        "signatures": {"0": "ab", "1": "cd"},
    }
    write_json(path, {"emot_net: CCIM N=64": entry, "emot_net: vanilla": entry | {"axis": None, "place": 1}})
    seed = path.read_bytes()

    def read(data: bytes) -> None:
        path.write_bytes(data)
        collect(update_ledger(path, [], {}, root.joinpath))

    return (seed,), read


def rates(root: Path) -> Made:
    path = root / "rates.json"
    Rates(path).record("render", 100, 2.0)
    seed = path.read_bytes()

    def read(data: bytes) -> None:
        path.write_bytes(data)
        Rates(path).seconds("render", 5)
        Rates(path).record("render", 100, 2.0)

    return (seed,), read


def logged_runs(root: Path) -> Made:
    """A sweep's run and two trials', as MLflow gives them: params and tags are text that anybody can have written."""
    space = Space("dict_size", "Does N matter?", {"vanilla": {}, "CCIM": {}}, "vanilla", {"CCIM": 64}, "size N")
    entries = [LedgerEntry("emot_net", name, space.axis.get(name), {0: root, 1: root}) for name in space.changes]
    constants = constant_tags([constant_row("caer_s", "emot_net", "chance", "test/accuracy", 0.18)])
    parent = {"ccim.kind": "sweep", **description_tags(space, entries), **constants}
    trial = {"ccim.kind": "trial", "mlflow.parentRunId": "run0", "ccim.published": '{"": 0.7}'}
    runs = [{"name": "a sweep", "status": "FINISHED", "params": {}, "metrics": {}, "tags": parent}]
    for number, setting in enumerate(space.changes):
        params = {"baseline": "emot_net", "dataset": "caer_s", "seed": "0"}
        metrics = {"val/accuracy": 0.5, "test/accuracy": 0.4 + number / 10, "test/recall/Anger": 0.5}
        tags = {**trial, "ccim.setting": setting}
        runs.append({"name": setting, "status": "FINISHED", "params": params, "metrics": metrics, "tags": tags})

    def read(data: bytes) -> None:
        try:
            written = json.loads(data)
            made = tuple(_logged(f"run{number}", of) for number, of in enumerate(written))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
            return  # MLflow itself gives text by name and numbers by name, and nothing else
        for sweep in collect_sweeps([LoggedExperiment("1", "caer_s/dict_size", made)]):
            _ = (sweep.name, sweep.question, sweep.rows, sweep.category_rows, sweep.not_started, sweep.notes)
            _ = (sweep.gains, sweep.unfinished, sweep.categories, sweep.axis)

    return (json.dumps(runs).encode(),), read


def _logged(run_id: str, of: dict[str, Any]) -> LoggedRun:
    texts = [{str(name): str(text) for name, text in of[key].items()} for key in ("params", "tags")]
    metrics = {str(name): float(value) for name, value in of["metrics"].items()}
    return LoggedRun(run_id, str(of["name"]), str(of["status"]), texts[0], metrics, texts[1], "1", 1.0, 2.0)


def model_description(root: Path) -> Made:
    folder = root / "model"
    (folder / "data").mkdir(parents=True)
    seed = b"""flavors:
  python_function:
    loader_module: ccim_ray.serving
    data: data
    python_version: 3.11.7
mlflow_version: 3.17.0
model_uuid: m-0123
run_id: 0123
signature:
  inputs: '[{"type": "string", "name": "image", "required": true}]'
utc_time_created: '2026-01-01 00:00:00'
"""
    unpickles = seed.replace(b"data: data", b"data: !!python/object/apply:os.system ['touch ../canary/ran']")

    def read(data: bytes) -> None:
        (folder / "MLmodel").write_bytes(data)
        found = model_data(folder, "runs:/0123/model")
        if not found.is_relative_to(folder):
            raise AssertionError(f"data outside the model: {found}")

    return (seed, seed.replace(b"data: data", b"data: ../../canary"), unpickles), read


def trial_archive(root: Path) -> Made:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, content in (("checkpoint.pt", b"x" * 700), ("journal.jsonl", b"{}\n")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))

    def read(data: bytes) -> None:
        from ccim_ray.errors import RequestError

        try:
            _unpack(io.BytesIO(data), root / "trial", "bucket/trials/0123.tar")
        except tarfile.TarError as error:  # which its one caller tells of
            raise RequestError(f"damaged ({error})") from error

    return (target.getvalue(),), read
