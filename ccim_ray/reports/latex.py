"""The results table as LaTeX."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from ccim_ray.metrics import LOWER_IS_BETTER, SECONDARY_METRICS
from ccim_ray.reports.tables import ResultRow, cells, reference_of, subject_of, with_notes
from ccim_ray.storage import atomic_path

METRICS_ACROSS = 4
"""Columns that fit beside a setting's name in the text of an article."""


def write_latex(rows: Sequence[ResultRow], path: Path, notes: Sequence[str] = ()) -> None:
    """Write ``latex_table`` to a file."""
    with atomic_path(path) as temporary:
        temporary.write_text(latex_table(rows, notes) + "\n", encoding="utf-8")


def latex_table(rows: Sequence[ResultRow], notes: Sequence[str] = ()) -> str:
    """Booktabs tables in one float: settings down, metrics across, mean ± sd in percent, the best of a block in bold.

    SECONDARY_METRICS are tables of their own below, and none has more columns than fit on a page.
    What must be known of the numbers (``notes``) stands in the caption.
    Constants, such as chance, are never in bold. A dagger stands for the mark ≈ of ``ResultRow.mark``;
    brackets hold what the paper printed.
    """
    metrics = list(dict.fromkeys(row.metric for row in rows))
    secondary = [metric for metric in metrics if metric.rpartition("/")[2] in SECONDARY_METRICS]
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{_escape_latex(with_notes(subject_of(rows), notes))}}}",
    ]
    for some in ([metric for metric in metrics if metric not in secondary], secondary):
        for start in range(0, len(some), METRICS_ACROSS):
            lines += _tabular(rows, some[start : start + METRICS_ACROSS])
    lines += [
        r"Mean $\pm$ standard deviation over seeds, as published in brackets.",
        rf"$\dagger$: no difference to {_escape_latex(reference_of(rows))} can be told from noise.",
        r"$?$: nothing to test with.",
        r"\end{table}",
    ]
    return "\n".join(lines)


def _tabular(rows: Sequence[ResultRow], metrics: Sequence[str]) -> Iterator[str]:
    shown = [row for row in rows if row.metric in metrics]
    heads = (r"\shortstack[r]{" + r"/\\".join(map(_escape_latex, metric.split("/"))) + "}" for metric in metrics)
    yield rf"\begin{{tabular}}{{l{'r' * len(metrics)}}}"
    yield r"\toprule"
    yield " & ".join(["Setting", *heads]) + r" \\"
    for (dataset, baseline), block in groupby(_by_block(shown), key=lambda row: (row.dataset, row.baseline)):
        yield r"\midrule"
        heading = _escape_latex(f"{baseline}, {dataset}" if baseline else dataset)
        yield rf"\multicolumn{{{len(metrics) + 1}}}{{l}}{{\emph{{{heading}}}}} \\"
        yield from _latex_block(list(block), metrics)
    yield r"\bottomrule"
    yield r"\end{tabular}\par\smallskip"


def best_means(group: Sequence[ResultRow]) -> dict[str, str]:
    """For each baseline of one metric's rows: the best measured mean, as it is printed."""
    blocks: dict[str, list[ResultRow]] = {}
    for row in group:
        blocks.setdefault(row.baseline, []).append(row)
    best = {baseline: _best_text(block, block[0].metric) for baseline, block in blocks.items()}
    return {baseline: text for baseline, text in best.items() if text is not None}


def _by_block(rows: Iterable[ResultRow]) -> list[ResultRow]:
    """Rows with those of one dataset and baseline together, else in the order given."""
    blocks: dict[tuple[str, str], list[ResultRow]] = {}
    for row in rows:
        blocks.setdefault((row.dataset, row.baseline), []).append(row)
    return [row for block in blocks.values() for row in block]


def _latex_block(block: Sequence[ResultRow], metrics: Sequence[str]) -> Iterator[str]:
    row_of = {(row.setting, row.metric): row for row in block}
    best = {metric: _best_text(block, metric) for metric in metrics}
    for setting in dict.fromkeys(row.setting for row in block):
        texts = [_escape_latex(setting)]
        for metric in metrics:
            row = row_of.get((setting, metric))
            mean, sd = _mean_and_sd(row, block) if row else ("", "")
            bold = row is not None and row.n_seeds and mean == best[metric]
            text = rf"\textbf{{{mean}}}" if bold else mean
            text += rf" $\pm$ {sd}" if sd else ""
            text += {"≈": r"$^\dagger$", "?": r"$^?$"}.get(row.mark if row is not None else "", "")
            printed = cells(row, block, ["paper"])[0] if row else ""
            texts.append(f"{text} ({printed})".strip() if printed else text)
        yield " & ".join(texts) + r" \\"


def _best_text(block: Sequence[ResultRow], metric: str) -> str | None:
    """The best measured mean as it is printed, so that ties in print are ties in bold."""
    measured = [row for row in block if row.metric == metric and row.n_seeds and row.mean is not None]
    if not measured:
        return None
    choose = min if "loss" in metric or metric.rpartition("/")[2] in LOWER_IS_BETTER else max
    return _mean_and_sd(choose(measured, key=lambda row: row.mean or 0.0), block)[0]


def _mean_and_sd(row: ResultRow, block: Sequence[ResultRow]) -> tuple[str, str]:
    mean, _, sd = cells(row, block, ["mean ± sd"])[0].partition(" ± ")
    return mean, sd


def _escape_latex(text: str) -> str:
    escapes = {character: f"\\{character}" for character in "&%$#_{}"}
    escapes |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    escapes |= {character: f"${character}$" for character in "|<>"}
    escapes |= {"λ": r"$\lambda$", "ρ": r"$\rho$", "η": r"$\eta$", "×": r"$\times$", "·": r"$\cdot$"}
    return "".join(escapes.get(character, character) for character in text)
