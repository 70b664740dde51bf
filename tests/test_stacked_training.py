"""Heads trained as one stack end as on their own, each by itself: same streams, same selection, same files.

Within what: with SGD, weights and logits within 1e-4 of their largest, since only the order of sums differs. AdamW
moves a parameter whose gradient is nothing but rounding (the bias before batch norm) as far as any other, so there
the logits are held to 2 % of the largest.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from head_trials import SETTINGS, head_trial, write_inputs
from safetensors.torch import load_file

from ccim_ray.intervention import additive_scores
from ccim_ray.journal import read_journal
from ccim_ray.prepared import TrialPaths
from ccim_ray.stacked_training import clip_each
from ccim_ray.stacked_trials import run_stack, stacks_of
from ccim_ray.training import ALONE
from ccim_ray.trial import run_trial
from ccim_ray.trial_folder import read_result


@pytest.fixture(scope="module")
def inputs(small_world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(small_world, folder)
    return folder


def folder_of(trial):
    return Path(trial.paths.folder)


def assert_near(found, expected, share):
    assert found.keys() == expected.keys()
    for name, of in expected.items():
        largest = max(1e-2, float(of.abs().max()))
        torch.testing.assert_close(
            found[name], of, rtol=0, atol=share * largest, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize(
    ("name", "optimiser"),
    [(name, "sgd") for name in ("vanilla", "control", "dot", "additive", "unweighted")] + [("dot", "adamw")],
)
def test_each_variant_is_its_separate_training(inputs, tmp_path, name, optimiser):
    """Seeds, and with and without P(z), in one stack; on its own a variant is trained by run_trial."""
    changes = [{"seed": seed, "optimiser": optimiser, "epochs": 5} for seed in (0, 1)]
    if name in ("dot", "additive"):
        changes.append({**changes[0], "seed": 2, "ccim__use_prior": False})
    stacked = [head_trial(inputs, tmp_path / "stack", name, **of) for of in changes]
    assert stacks_of(stacked) == [stacked]
    run_stack(stacked, ALONE, TrialPaths.read)
    for of, trial in zip(changes, stacked, strict=True):
        alone = head_trial(inputs, tmp_path / "alone", name, **of)
        run_trial(alone)
        results = [read_result(folder_of(one)) for one in (trial, alone)]
        journals = [read_journal(folder_of(one) / "journal.jsonl") for one in (trial, alone)]
        if optimiser == "adamw":  # moves what has no gradient but rounding: answers near a boundary may differ
            assert results[0].epochs == results[1].epochs
            losses = [[line.metrics["train/loss"] for line in lines] for lines in journals]
            assert losses[0] == pytest.approx(losses[1], rel=1e-2)
            continue
        assert results[0].metrics == pytest.approx(results[1].metrics, abs=1e-3)
        assert (results[0].best_epoch, results[0].epochs) == (results[1].best_epoch, results[1].epochs)
        for found, expected in zip(*journals, strict=True):
            assert found.step == expected.step
            assert found.metrics == pytest.approx(expected.metrics, abs=1e-3)
        scores = [load_file(folder_of(one) / "scores.safetensors") for one in (trial, alone)]
        assert_near(*scores, 1e-4)
        assert_near(*(load_file(folder_of(one) / "best.safetensors") for one in (trial, alone)), 1e-4)
        for file in ("experiment.json", "categories.json"):
            assert (folder_of(trial) / file).read_bytes() == (folder_of(alone) / file).read_bytes()


def test_a_variant_that_diverges_or_has_ended_leaves_the_others_alone(inputs, tmp_path, monkeypatch):
    """The weights of one variant start as NaN; another had a result before the stack began."""
    trials = [head_trial(inputs, tmp_path, "dot", seed) for seed in range(3)]
    run_trial(trials[2])
    before = (folder_of(trials[2]) / "result.json").read_bytes()

    def broken(experiment, *rest):
        recogniser = real(experiment, *rest)
        if experiment.seed == 0:
            torch.nn.init.constant_(recogniser.classifier.weight, float("nan"))
        return recogniser

    from ccim_ray import stacked_trials

    real = stacked_trials.build_recogniser
    monkeypatch.setattr(stacked_trials, "build_recogniser", broken)
    run_stack(trials, ALONE, TrialPaths.read)

    diverged, done, _ = (read_result(folder_of(trial)) for trial in trials)
    assert (diverged.status, diverged.epochs, diverged.diverged_at_step) == ("diverged", 0, 0)
    assert (done.status, done.epochs) == ("done", 3)
    assert (folder_of(trials[2]) / "result.json").read_bytes() == before


def test_trials_are_stacked_by_shape(inputs, tmp_path):
    trials = [head_trial(inputs, tmp_path, name, seed) for name in SETTINGS for seed in (0, 1)]
    trials.append(head_trial(inputs, tmp_path, "dot", 2, ccim__use_prior=False))
    resumed = head_trial(inputs, tmp_path, "vanilla", 3)
    folder_of(resumed).mkdir(parents=True)
    (folder_of(resumed) / "checkpoint.pt").touch()
    slower = head_trial(inputs, tmp_path, "vanilla", 4, learning_rate=1e-5)
    groups = [sorted(trial.signature for trial in group) for group in stacks_of([*trials, resumed, slower])]
    assert sorted(groups) == [
        ["additive-0", "additive-1"],
        ["clusters-0"],
        ["clusters-1"],
        ["control-0", "control-1"],
        ["dot-0", "dot-1", "dot-2"],
        ["unweighted-0", "unweighted-1"],
        ["vanilla-0", "vanilla-1"],
        ["vanilla-3"],
        ["vanilla-4"],
    ]
    assert max(map(len, stacks_of(trials, largest=2))) == 2


def test_gradients_are_clipped_by_variant():
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(3, 4, 5, generator=generator), torch.randn(3, 7, generator=generator)]
    gradients[1][1] *= 100
    separate = [[torch.nn.Parameter(torch.zeros_like(of[v])) for of in gradients] for v in range(3)]
    norms = []
    for v, parameters in enumerate(separate):
        for parameter, of in zip(parameters, gradients, strict=True):
            parameter.grad = of[v].clone()
        norms.append(torch.nn.utils.clip_grad_norm_(parameters, 6.0))
    torch.testing.assert_close(clip_each(gradients, 6.0), torch.stack(norms))
    for v, parameters in enumerate(separate):
        for parameter, of in zip(parameters, gradients, strict=True):
            torch.testing.assert_close(of[v], parameter.grad)


def test_additive_scores_of_a_stack_have_their_gradients():
    generator = torch.Generator().manual_seed(0)
    query, key, weight = (
        torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((3, 5, 4), (6, 4), (3, 4))
    )
    found = torch.vmap(additive_scores, in_dims=(0, None, 0))(query, key, weight)
    expected = torch.einsum("vbna,va->vbn", torch.tanh(query[:, :, None] + key), weight)
    torch.testing.assert_close(found, expected)
    factors = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    for a, b in zip(
        torch.autograd.grad((found * factors).sum(), [query, key, weight]),
        torch.autograd.grad((expected * factors).sum(), [query, key, weight]),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
