"""What a sweep's runs say of it is read back as it was, whatever its length."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccim_ray.presets import default_experiment
from ccim_ray.reports.published import published_scores
from ccim_ray.reports.tables import build_rows, constant_row
from ccim_ray.results import LedgerEntry
from ccim_ray.space import Space
from ccim_ray.sweep_tags import (
    AskedSetting,
    constant_tags,
    description_tags,
    mean_metrics,
    published_tag,
    read_description,
    read_published,
)

MLFLOW_LIMIT = 8000


def space_of(question, reference, axis_label):
    return Space("s", question, {reference: {}}, reference, {}, axis_label)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=60), st.none() | st.integers(1, 4096)), max_size=120), st.text(max_size=80))
def test_a_description_is_read_as_it_was_logged(asked, question):
    entries = [LedgerEntry("gcn_cnn", setting, axis, {seed: Path("t") for seed in (2, 0)}) for setting, axis in asked]
    constants = [constant_row("d", "b", setting, "test/mAP", 0.25) for setting, _ in asked]
    tags = description_tags(space_of(question, "vanilla", "size"), entries) | constant_tags(constants)
    assert all(len(value) <= MLFLOW_LIMIT for value in tags.values())
    read = read_description(tags)
    assert read.asked == tuple(
        AskedSetting("gcn_cnn", "gcn_cnn (approximate)", setting, axis, (0, 2)) for setting, axis in asked
    )
    assert (read.question, read.reference, read.axis_label) == (question, "vanilla", "size")
    assert read.constants == {setting: {"test/mAP": 0.25} for setting, _ in asked}


def test_tags_of_an_older_version_describe_nothing():
    read = read_description({"ccim.space": "dict_size"})
    assert (read.question, read.reference, read.asked, read.constants) == ("", "", (), {})


@pytest.mark.parametrize("value", ["{", "[1]", '[["emot_net"]]', "null", '{"a": 1}'])
def test_tags_that_were_not_logged_so_are_an_error(value):
    with pytest.raises(ValueError, match=r"."):
        read_description({"ccim.asked.0": value})


def test_the_papers_numbers_go_with_the_trials_that_they_are_of():
    base = default_experiment("emotic", "paper", None)
    vanilla = base.with_changes(deconfounder="none")
    assert read_published(published_tag(vanilla)) == published_scores("emotic", "emot_net", with_ccim=False)
    assert read_published(published_tag(base)) == published_scores("emotic", "emot_net", with_ccim=True)
    assert all(len(value) <= MLFLOW_LIMIT for value in published_tag(base).values())
    assert published_tag(base.with_changes(deconfounder="backdoor")) == {}
    with pytest.raises(ValueError, match="ccim.published"):
        read_published({"ccim.published": "[]"})


def test_means_are_named_by_metric_and_setting():
    results = {"vanilla": {0: {"test/mAP": 0.2}, 1: {"test/mAP": 0.4}}, "CCIM": {}}
    rows = build_rows("d", "emot_net", results, ["test/mAP"], "vanilla", {})
    assert mean_metrics(rows) == {"mean/test/mAP/vanilla": pytest.approx(0.3)}
    rows += build_rows("d", "gcn_cnn", results, ["test/mAP"], "vanilla", {})
    assert set(mean_metrics(rows)) == {"mean/test/mAP/emot_net vanilla", "mean/test/mAP/gcn_cnn vanilla"}
