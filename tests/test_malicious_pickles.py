"""Pickles in the place of every file that is read: none of them is run, and each is refused in one line."""

import io
import os
import pickle
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.data  # noqa: F401 - registers a type of columns that hold pickles
import torch
from fuzz.targets import make_target, names, outcome, write_canary
from ray.data.extensions import ArrowPythonObjectArray

from ccim_ray.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ccim_ray.errors import RequestError
from ccim_ray.inspection import read_subjects
from ccim_ray.perception.detection_files import PlannedDetections
from ccim_ray.prepared import read_reasons, read_shard, read_subject_index

READ_AS_NOTHING = ("journal", "tags from MLflow")
"""A line that was not finished is no line; MLflow's server gives text alone."""


class Marker:
    """A pickle of it makes a folder where it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def marker(tmp_path):
    """Whether code ran, in the end; ``bytes`` is the pickle."""

    class Ran:
        path = tmp_path / "ran"
        thing = Marker(path)
        content = pickle.dumps(thing)

    yield Ran
    assert not Ran.path.exists()
    pickle.loads(Ran.content)
    assert Ran.path.exists()  # so it was dangerous


def forms(marker):
    """The pickle by itself, in NumPy's, in torch's old and new form."""
    array, old, new = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(array, np.array([marker.thing, 1], object), allow_pickle=True)
    torch.save({"a": marker.thing}, old, _use_new_zipfile_serialization=False)
    torch.save({"a": marker.thing}, new)
    archive = io.BytesIO()
    np.savez(archive, train=np.array([marker.thing, 1], object))
    return [marker.content, *(each.getvalue() for each in (array, old, new, archive))]


@pytest.mark.parametrize("name", list(names()))
def test_a_pickle_in_the_place_of_a_file_is_refused(name, tmp_path, marker):
    write_canary(tmp_path)
    target = make_target(name, tmp_path)
    for content in forms(marker):
        assert outcome(target, content) == "refused" or name in READ_AS_NOTHING


def test_a_pickle_within_a_sound_checkpoint_is_refused(tmp_path, marker):
    model = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(model.parameters())
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, Checkpoint(), model, optimiser)
    content = torch.load(path, weights_only=True)
    buffer = io.BytesIO()  # as training writes it: another name of the archive would be refused before
    torch.save(content | {"progress": {"epoch": marker.thing}}, buffer)
    path.write_bytes(buffer.getvalue())
    assert zipfile.ZipFile(path).testzip() is None
    with pytest.raises(
        RequestError, match=r"checkpoint .* is damaged \(its description is not one of tensors: it names "
    ):
        load_checkpoint(path, model, optimiser)


READERS = {
    "subjects": read_subject_index,
    "subjects shown": lambda path: read_subjects(path, np.array([0])),
    "shard": read_shard,
    "reasons": lambda path: read_reasons(path.parent, ("1",)),
    "detections": lambda path: PlannedDetections("a detector", path.parent, ("a.png",)).read(),
}


@pytest.mark.parametrize(
    ("reader", "form"), [*((reader, "parquet") for reader in READERS), ("shard", "arrow"), ("reasons", "arrow")]
)
def test_a_column_of_pickles_is_not_unpickled(reader, form, tmp_path, marker):
    """The one of Ray Data's types whose values are pickles; pyarrow unpickles them where it is asked for values."""
    column = ArrowPythonObjectArray.from_objects([marker.thing])
    columns = ("subject_id", "reason", "rows", "image", "boxes", "scores", "joints", "depth")
    table = pa.table(dict.fromkeys(columns, column), metadata={"ccim_ray": '{"root": ".", "categories": []}'})
    path = tmp_path / f"shard-00000.{form}"
    if form == "parquet":
        pq.write_table(table, path, compression="none", use_dictionary=False)
    else:
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table)
    with pytest.raises(RequestError, match=r"damaged .*(is of the type|has no column)"):
        READERS[reader](path)
    assert not marker.path.exists()
    with pytest.raises(FileExistsError):  # what the values are is run where they are asked for
        [table["reason"].to_pylist() for _ in range(2)]
    marker.path.rmdir()
