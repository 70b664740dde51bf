"""Which learning rate, weight decay, batch size and settings of CCIM do best on the validation split?

Command:   python jobs/tune_hyperparameters.py
Hardware:  two CPU cores, no GPU
Minutes:   two and a half
Expected:  val/accuracy 0.769 against 0.767 of the first trial, which has the settings as they are, with a standard
           error of 0.016: on the embedded world the defaults can hardly be improved. Half of the 20 trials or more are
           stopped early.

What the command line fixes is not searched: --learning-rate, --weight-decay, --batch-size, one --sizes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ccim_ray.deconfounders.registry import deconfounder_card
from ccim_ray.experiment import Experiment
from ccim_ray.hyperparameters import Choice, LogRange, SearchSpace

LEARNING_RATE_FACTOR = 10
"""The range of the learning rate goes so many times below and above the baseline's own."""

WEIGHT_DECAY = LogRange(1e-6, 1e-1)
BATCH_FACTORS = (0.25, 0.5, 1, 2)
ATTENTIONS = ("dot_product", "additive")
ATTENTION_DIMS = (64, 128, 256, 512)


def hyperparameters_space(base: Experiment, sizes: Sequence[int], fixed: Collection[str]) -> SearchSpace:
    """Settings of training, and of the deconfounder where ``base`` has one; those in ``fixed`` are left as they are.

    Args:
        sizes: N, prototypes of the dictionary, to choose from.
        fixed: keys of the experiment.
    """
    rate, batch = base.learning_rate, base.batch_size
    batches = {max(2 * base.workers, round(factor * batch)) for factor in BATCH_FACTORS}
    parameters: dict[str, LogRange | Choice] = {
        "learning_rate": LogRange(rate / LEARNING_RATE_FACTOR, rate * LEARNING_RATE_FACTOR),
        "weight_decay": WEIGHT_DECAY,
        "batch_size": Choice(tuple(sorted(batches))),
    }
    if deconfounder_card(base.deconfounder).uses_dictionary:
        parameters["dictionary__size"] = Choice(tuple(sizes))
    if base.deconfounder == "ccim" and base.ccim.use_lambda:
        parameters["ccim__attention"] = Choice(ATTENTIONS)
        parameters["ccim__attention_dim"] = Choice(ATTENTION_DIMS)
    one_value = {key for key, allowed in parameters.items() if isinstance(allowed, Choice) and len(allowed.values) == 1}
    name = deconfounder_card(base.deconfounder).title
    return SearchSpace(
        name="hyperparameters",
        question=f"Which hyper-parameters of {base.baseline} ({name}) do best on the validation split?",
        parameters={key: allowed for key, allowed in parameters.items() if key not in {*fixed, *one_value}},
    )
