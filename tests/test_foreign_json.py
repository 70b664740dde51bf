"""JSON beside a trial that is sound JSON and not what the package writes: one line that names the file."""

import json

import pytest

from ccim_ray.errors import RequestError
from ccim_ray.plan import trial_state
from ccim_ray.rates import Rates
from ccim_ray.results import update_ledger
from ccim_ray.storage import atomic_path
from ccim_ray.trial_folder import read_result

ENTRY = {
    "baseline": "emot_net",
    "setting": "vanilla",
    "place": 0,
    "axis": None,
    "signatures": {"0": "0123456789abcdef"},
}


@pytest.mark.parametrize(
    ("name", "read", "wrong"),
    [
        ("failure.json", trial_state, [{}, [], 1.5, "text"]),
        ("stopped.json", trial_state, [{"of": 3}, ["epoch", "of"], None]),
        ("result.json", read_result, [{"status": "done", "metrics": {"val/mAP": "high"}}, {"status": 1}, [], 3]),
        ("result.json", read_result, [{"status": "done", "metrics": 7}]),
        ("rates.json", lambda folder: Rates(folder / "rates.json"), [{"render": {"units": 1}}, [1], {"render": 2}]),
        ("rates.json", lambda folder: Rates(folder / "rates.json"), [{"render": {"units": 1, "seconds": 0}}]),
        (
            "ledger.json",
            lambda folder: update_ledger(folder / "ledger.json", [], {}, folder.joinpath),
            [
                [],
                {"a": 1},
                {"a": ENTRY | {"place": "first"}},
                {"a": ENTRY | {"signatures": {"0": "../../elsewhere"}}},
                {"a": ENTRY | {"signatures": {"zero": "/etc"}}},
            ],
        ),
    ],
)
def test_json_of_another_form_is_refused(tmp_path, name, read, wrong):
    for content in wrong:
        (tmp_path / name).write_text(json.dumps(content))
        with pytest.raises(RequestError, match=name):
            read(tmp_path)


def test_a_ledger_of_ours_is_read(tmp_path):
    (tmp_path / "ledger.json").write_text(json.dumps({"emot_net: vanilla": ENTRY}))
    (entry,) = update_ledger(tmp_path / "ledger.json", [], {}, tmp_path.joinpath)
    assert entry.folders == {0: tmp_path / "0123456789abcdef"}


def test_a_name_that_no_file_can_have_is_refused(tmp_path):
    with pytest.raises(RequestError, match="cannot write"), atomic_path(tmp_path / ("x" * 300)) as temporary:
        temporary.write_text("content")
