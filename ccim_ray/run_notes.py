"""What a run's page in MLflow says first, in Markdown: what it is, and the command that does it again."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

NOTE_TAG = "mlflow.note.content"
"""Shown as the description of the run, which people may edit; what they wrote is left as it is."""


def sweep_note(question: str, tags: Mapping[str, str], comparison: str, model: str | None) -> str:
    """Of a sweep's or search's run.

    Args:
        tags: of the run; the command, the commit and the version are read from them.
        comparison: where this MLflow shows the trials side by side; empty where it has no such view.
        model: URI of its best model by validation; None where no model is logged.
    """
    head = f"**{question}**" + (f" [Its trials by setting, seeds averaged]({comparison})" if comparison else "")
    means = "`mean/...` are means over seeds; tables with intervals and tests are among the artefacts."
    alone = "Its trials are the runs below this one; they hold validation scores alone."
    best = [f"Its best model by validation: `python jobs/predict.py --model {model}`"] if model else []
    return "\n\n".join([head, *_again(tags), means if comparison else alone, *best])


def trial_note(title: str, signature: str, tags: Mapping[str, str], has_model: bool) -> str:
    """Of a trial's run; ``tags`` as in ``sweep_note``."""
    predict = [f"New pictures with its model: `python jobs/predict.py --model {signature}`"] if has_model else []
    return "\n\n".join([f"**{title}**", *_again(tags), *predict])


def _again(tags: Mapping[str, str]) -> list[str]:
    """The command, near the top: MLflow folds what is longer than a few lines."""
    command = tags.get("ccim.command")
    if not command:
        return []
    made_by = [f"ccim_ray {tags['ccim.version.ccim_ray']}"] if "ccim.version.ccim_ray" in tags else []
    if "mlflow.source.git.commit" in tags:
        changed = ", with changes that are not committed" if tags.get("ccim.git_dirty") == "true" else ""
        made_by.append(f"commit `{tags['mlflow.source.git.commit'][:12]}`{changed}")
    by = f" ({', '.join(made_by)})" if made_by else ""
    told = f"That command reproduces it{by}; given again in the same storage, it does only what is missing."
    return [textwrap.indent(command, "    "), told]
