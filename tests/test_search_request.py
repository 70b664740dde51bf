"""From flags to a search, and from what it chose to the command that trains it."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import tyro

from ccim_ray.errors import RequestError
from ccim_ray.hyperparameters import Choice
from ccim_ray.search_flags import SearchFlags
from ccim_ray.searching import search_request
from ccim_ray.study import Study
from ccim_ray.training_flags import CcimFlags
from search_spaces.hyperparameters import ATTENTION_DIMS, ATTENTIONS, hyperparameters_space

COMMAND = ["jobs/tune_hyperparameters.py"]
FLAGS = {
    "world": {},
    "without a deconfounder": {"deconfounder": "none"},
    "back-door": {"deconfounder": "backdoor", "sizes": (16,)},
    "w/o lambda": {"use_lambda": False, "like": "emotic", "seed": 11},
    "one thing searched": {"learning_rate": 3e-3, "batch_size": 32, "deconfounder": "none", "epochs": 7},
    "options": {"baseline": "emoticon", "baseline_options": ("sociodynamic=agents",), "use_prior": False},
    "folders with spaces": {"compile": True, "channels_last": False, "max_concurrent": 1, "bias": 0.35},
}


def flags_of(tmp_path, **given):
    return SearchFlags(preset="smoke", storage=str(tmp_path / "my runs"), **given)


def space_of(flags):
    return hyperparameters_space(flags.experiment(), flags.chosen_sizes(), flags.fixed())


def request_of(flags):
    return search_request(flags, space_of(flags), COMMAND)


@pytest.mark.parametrize("given", FLAGS.values(), ids=FLAGS)
def test_the_rerun_command_trains_the_chosen_values_with_fresh_seeds(tmp_path, given):
    flags = flags_of(tmp_path, **given)
    request = request_of(flags)
    study = Study(tmp_path / "study.db", "key", request.space, request.space.start(request.base), 0)
    for _ in range(3):
        values = study.ask().values
        python, job, *words = shlex.split(request.rerun(values))
        assert (python, job) == ("python", "jobs/train.py")
        read = tyro.cli(CcimFlags, args=words, config=(tyro.conf.FlagCreatePairsOff,))
        assert flags.seed not in read.seeds
        assert len(set(read.seeds)) >= 3
        wanted = request.base.with_changes(**values)
        assert read.experiment().with_changes(seed=flags.seed).essence() == wanted.essence()
        assert read.open_storage().root == tmp_path / "my runs"
        assert read.max_concurrent == flags.max_concurrent


def test_ccim_is_searched_only_where_it_is_used(tmp_path):
    of_training = {"learning_rate", "weight_decay", "batch_size"}
    ccim = space_of(flags_of(tmp_path)).parameters
    assert set(ccim) == of_training | {"dictionary__size", "ccim__attention", "ccim__attention_dim"}
    assert ccim["dictionary__size"] == Choice((8, 16))
    assert (ccim["ccim__attention"].values, ccim["ccim__attention_dim"].values) == (ATTENTIONS, ATTENTION_DIMS)
    without_lambda = space_of(flags_of(tmp_path, use_lambda=False)).parameters
    assert set(without_lambda) == of_training | {"dictionary__size"}
    assert set(space_of(flags_of(tmp_path, deconfounder="none")).parameters) == of_training
    assert set(space_of(flags_of(tmp_path, deconfounder="ipw")).parameters) == of_training | {"dictionary__size"}


def test_what_the_command_line_fixes_is_not_searched(tmp_path):
    flags = flags_of(tmp_path, weight_decay=0.0, batch_size=32, sizes=(12,))
    assert set(space_of(flags).parameters) == {"learning_rate", "ccim__attention", "ccim__attention_dim"}
    base = flags.experiment()
    assert (base.weight_decay, base.batch_size, base.dictionary.size) == (0.0, 32, 12)


@pytest.mark.parametrize("baseline", ["emot_net", "gcn_cnn", "caer_net", "emoticon"])
def test_the_first_trial_is_the_base_experiment(tmp_path, baseline):
    flags = flags_of(tmp_path, baseline=baseline)
    base = flags.experiment()
    assert base.with_changes(**space_of(flags).start(base)) == base


def test_more_samples_go_on_with_the_search_and_other_settings_begin_another(tmp_path):
    flags = flags_of(tmp_path)
    ids = {}
    for name, other in {
        "same": flags,
        "more": replace(flags, num_samples=30, max_concurrent=1),
        "search seed": replace(flags, search_seed=1),
        "seed": replace(flags, seed=1),
        "epochs": replace(flags, epochs=9),
        "grace": replace(flags, grace_epochs=2),
        "sizes": replace(flags, sizes=(8, 12)),
        "world": replace(flags, bias=0.7),
    }.items():
        request = request_of(other)
        ids[name] = request.search_id(request.plan())
    assert ids.pop("more") == ids["same"]
    assert len(set(ids.values())) == len(ids)


def test_a_trial_has_the_folder_that_any_other_job_would_give_it(tmp_path):
    flags = flags_of(tmp_path)
    request = request_of(flags)
    plan = request.plan()
    values = {"learning_rate": 5e-3, "dictionary__size": 8}
    from ccim_ray.plan import make_plan

    alone = make_plan([("", flags.experiment().with_changes(**values))], (0,), flags.open_storage(), None)
    assert request.planned(plan, 4, values).trial == alone.trials[0].trial
    assert {planned.key for planned in alone.dictionaries} < {planned.key for planned in plan.dictionaries}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"num_samples": 0}, "--num-samples 0"),
        ({"grace_epochs": 4}, "--grace-epochs 4: give a whole number from 1 to the 3 epochs"),
        ({"grace_epochs": 0}, "--grace-epochs 0"),
        ({"reduction_factor": 1}, "--reduction-factor 1"),
        ({"sizes": (0, 8)}, "--sizes 0"),
        ({"sizes": ()}, "--sizes needs"),
        ({"learning_rate": -1.0}, "--learning-rate"),
        ({"learning_rate": 1.0, "weight_decay": 0.0, "batch_size": 8, "deconfounder": "none"}, "fixed by a flag"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path, given, said):
    with pytest.raises(RequestError, match=said) as raised:
        request_of(flags_of(tmp_path, **given))
    assert "\n" not in str(raised.value)


def test_the_command_names_the_job_beside_the_search(tmp_path):
    flags = flags_of(tmp_path)
    request = search_request(flags, space_of(flags), ["/some where/jobs/tune_hyperparameters.py"])
    assert shlex.split(request.rerun({}))[1] == str(Path("/some where/jobs/train.py"))
