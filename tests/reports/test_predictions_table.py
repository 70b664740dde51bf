"""The table of a prediction, read back from both of its files."""

import csv
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from ccim_ray.errors import RequestError
from ccim_ray.reports.predictions import DONE, PredictedRow, failures, write_predictions

CATEGORIES = ("Anger", "Doubt/Confusion", "Peace")
ROWS = [
    PredictedRow("a, b.png", 0, (1.5, 2.0, 30.0, 40.0), "user", None, DONE, np.float32([0.1234567, 0.7, 0.2])),
    PredictedRow("a, b.png", 1, (0.0, 0.0, 3.0, 4.0), "detector@coco", 0.75, DONE, np.float32([0.5, 0.5, 0.5])),
    PredictedRow("c.png", 0, None, None, None, "box does not lie in the image", None),
    PredictedRow("d.png", None, None, None, None, "not an image", None),
]


def test_both_files_hold_every_row_in_order(tmp_path):
    write_predictions(ROWS, CATEGORIES, {"model": "m"}, tmp_path)
    table = pq.read_table(tmp_path / "predictions.parquet")
    assert json.loads(table.schema.metadata[b"ccim_ray"]) == {"model": "m"}
    with (tmp_path / "predictions.csv").open(newline="") as stream:
        written = list(csv.DictReader(stream))
    assert list(written[0]) == table.column_names
    assert table.column_names[-3:] == list(CATEGORIES)
    for row, of_table, of_csv in zip(ROWS, table.to_pylist(), written, strict=True):
        assert (of_table["image"], of_table["person"], of_table["status"]) == (row.image, row.person, row.status)
        assert (of_csv["image"], of_csv["status"]) == (row.image, row.status)
        if row.probabilities_K is None:
            assert {of_table[name] for name in (*CATEGORIES, "top", "x1", "box_source")} == {None}
            assert {of_csv[name] for name in (*CATEGORIES, "top", "x1", "box_source")} == {""}
            continue
        assert tuple(of_table[name] for name in ("x1", "y1", "x2", "y2")) == row.box
        np.testing.assert_array_equal([of_table[name] for name in CATEGORIES], row.probabilities_K)
        of_text_K = np.float32([of_csv[name] for name in CATEGORIES])
        np.testing.assert_allclose(of_text_K, row.probabilities_K, rtol=1e-6)
    assert [row["top"] for row in written] == ["Doubt/Confusion", "Anger", "", ""]
    assert [row["box_score"] for row in written] == ["", "0.75", "", ""]


def test_what_could_not_be_predicted_is_counted_by_kind():
    assert failures(ROWS).places == {"box does not lie in the image": ["c.png person 0"], "not an image": ["d.png"]}


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(RequestError, match="cannot write .*predictions.parquet"):
        write_predictions(ROWS, CATEGORIES, {}, tmp_path / "out")
