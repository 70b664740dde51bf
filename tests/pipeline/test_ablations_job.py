"""Table 4's job on the embedded world: every setting trained, controls as they are described, categories told."""

from __future__ import annotations

import csv

import pytest
import torch
from job_runs import TINY, run_job

from ccim_ray.confounders import ConfounderDictionary

pytestmark = pytest.mark.slow

SETTINGS = {
    "vanilla",
    "W_h alone",
    "CCIM",
    "random Z",
    "ImageNet Z",
    "additive attention",
    "w/o lambda",
    "w/o P(z)",
    "w/o masking",
    "renormalised",
    "shuffled P(z)",
    "uniform P(z)",
}


@pytest.fixture(scope="module")
def ablated(tmp_path_factory):
    storage = tmp_path_factory.mktemp("ablations")
    flags = ("--like", "groupwalk", "--baselines", "emot_net", "--seeds", "0")
    return storage, run_job("run_ablations", *TINY, *flags, "--storage", str(storage))


def read(storage, name):
    (path,) = storage.glob(f"sweeps/*/{name}")
    return list(csv.DictReader(path.open()))


def test_every_setting_of_the_space_is_in_the_table(ablated):
    storage, ended = ablated
    assert (ended.status, ended.err) == (0, "")
    measured = [row for row in read(storage, "results.csv") if row["n_seeds"]]
    assert {row["setting"] for row in measured} == SETTINGS
    assert all(row["n_seeds"] == "1" and row["mean"] for row in measured)
    assert len([row for row in measured if row["delta"]]) == len(measured) * 11 / 12
    assert len(list(storage.glob("trials/*/result.json"))) == 12


def test_gains_without_each_category_add_up_to_those_with_all(ablated):
    storage, ended = ablated
    deltas = {(row["setting"], row["metric"]): row["delta"] for row in read(storage, "results.csv") if row["delta"]}
    gains = read(storage, "leave_one_out.csv")
    assert {row["left_out"] for row in gains} == {"", "Angry", "Happy", "Neutral", "Sad"}
    for (setting, metric), delta in deltas.items():
        if not metric.endswith("/mAP"):
            continue
        of_setting = [row for row in gains if (row["setting"], row["metric"]) == (setting, metric)]
        whole, *others = (float(row["delta"]) for row in of_setting)
        assert whole == pytest.approx(float(delta), abs=1e-12)
        assert sum(others) / len(others) == pytest.approx(whole, abs=1e-12)
    assert "test_do/mAP: gain over vanilla without the category that carries most of it" in ended.out


def test_dictionaries_of_the_controls_differ_from_ccims_where_they_say(ablated):
    storage, _ = ablated
    dictionaries = [ConfounderDictionary.load(path) for path in storage.glob("derived/dictionaries/*.safetensors")]
    assert len(dictionaries) == 6
    (shuffled,) = (of for of in dictionaries if "shuffled" in of.provenance.get("prior", ""))
    (uniform,) = (of for of in dictionaries if of.provenance.get("prior") == "uniform")
    same = [of for of in dictionaries if torch.equal(of.prototypes_ND, shuffled.prototypes_ND)]
    (whole,) = (of for of in same if "prior" not in of.provenance)
    assert torch.equal(uniform.prototypes_ND, whole.prototypes_ND)
    assert uniform.prior_N.unique().numel() == 1
    assert whole.prior_N.sort().values.tolist() == shuffled.prior_N.sort().values.tolist()
    assert not torch.equal(whole.prior_N, shuffled.prior_N)
