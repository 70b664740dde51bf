"""What a hyper-parameter search may vary, put as data. Knows no Optuna."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

from ccim_ray.experiment import Experiment

Values = dict[str, Any]
"""Values of one trial, by the key that ``Experiment.with_changes`` takes."""


@dataclass(frozen=True)
class LogRange:
    """Any number from ``low`` to ``high``, each order of magnitude as likely as the next."""

    low: float
    high: float

    def nearest(self, value: float) -> float:
        """``value``, moved into the range."""
        return min(max(value, self.low), self.high)

    def rounded(self, value: float) -> float:
        """Three digits: as many as matter, and few enough to type again."""
        return float(f"{value:.3g}")


@dataclass(frozen=True)
class Choice:
    """One of these values."""

    values: tuple[int | str, ...]

    def nearest(self, value: int | str) -> int | str:
        """``value``, or else the number among the choices that is closest to it, or the first word."""
        if value in self.values or not isinstance(value, int):
            return value if value in self.values else self.values[0]
        return min(
            (choice for choice in self.values if isinstance(choice, int)), key=lambda choice: abs(choice - value)
        )

    def rounded(self, value: int | str) -> int | str:
        """As it is."""
        return value


@dataclass(frozen=True)
class SearchSpace:
    """A search put as data.

    Attributes:
        name: names the MLflow experiment ``<dataset>/<name>``.
        question: in one line, as shown in tables.
        parameters: by key of the experiment, nested keys with two underscores.
    """

    name: str
    question: str
    parameters: Mapping[str, LogRange | Choice]

    def start(self, base: Experiment) -> Values:
        """The values that the base experiment has, moved into the space: the first trial."""
        return {key: allowed.nearest(setting_of(base, key)) for key, allowed in self.parameters.items()}

    def rounded(self, values: Mapping[str, Any]) -> Values:
        """The values as a trial uses them."""
        return {key: allowed.rounded(values[key]) for key, allowed in self.parameters.items()}

    def described(self) -> dict[str, Any]:
        """Plain values, for the key of a search."""
        return {
            key: [allowed.low, allowed.high] if isinstance(allowed, LogRange) else {"one of": list(allowed.values)}
            for key, allowed in self.parameters.items()
        }


def setting_of(experiment: Experiment, key: str) -> Any:
    """The experiment's value of a key, nested ones written with two underscores."""
    return reduce(getattr, key.split("__"), experiment)


def dotted(key: str) -> str:
    """The key as MLflow and tables show it."""
    return key.replace("__", ".")


def in_words(values: Mapping[str, Any]) -> str:
    """Values in one line."""
    return ", ".join(
        f"{dotted(key)} {value:g}" if isinstance(value, float) else f"{dotted(key)} {value}"
        for key, value in values.items()
    )
