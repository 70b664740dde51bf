"""What the report's page draws, as plain data for plotly: the page's own script hands it over and colours it.

A colour is the name of one of the page's CSS variables, such as "--accent", so that the same plot fits light and dark.
Plotly reads text as a little HTML: every text from outside is escaped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from ccim_ray.logged_sweeps import LoggedSweep, LoggedTrial
from ccim_ray.reports.tables import T_INTERVAL, ResultRow, cells, in_percent

Plot = dict[str, Any]
"""``views``: name, traces and layout of each; ``height`` in pixels."""

SERIES = tuple(f"--series-{place}" for place in range(1, 9))
DASHES = ("solid", "dash", "dot", "dashdot")
DECIMALS = 4
LEGEND = {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"}


def intervals(group: Sequence[ResultRow], sweep: LoggedSweep) -> Plot | None:
    """Mean, 95 % interval and every seed of each setting, one line a setting; None where nothing was measured.

    ``group``: the rows of one metric.
    """
    measured = [row for row in group if row.n_seeds and row.mean is not None]
    if not measured:
        return None
    metric, scale = group[0].metric, 100 if in_percent(group, group[0].metric) else 1
    names = [_label(row, group) for row in measured]
    layout: Plot = {
        "xaxis": {
            "title": {"text": f"{_plain(metric)}{' (%)' if scale == 100 else ''}"},
            "range": _range(measured, scale),
        },
        "yaxis": {"autorange": "reversed", "type": "category"},
        "shapes": list(_reference_band(measured, sweep.reference, scale)),
        "showlegend": False,
    }
    traces = [
        _seed_marks(measured, names, sweep, scale),
        _means(measured, names, sweep.reference, group, scale),
        *_published_marks(measured, names, scale),
    ]
    tall = 40 if len({row.baseline for row in measured}) > 1 else 30
    views = [{"name": "settings", "data": traces, "layout": layout}]
    if any(row.setting in sweep.axis for row in measured):
        views.insert(0, {"name": sweep.description.axis_label or "axis", **_curve(measured, group, sweep, scale)})
    return {"views": views, "height": max(260, 92 + tall * len(measured))}


def constants_in_words(group: Sequence[ResultRow]) -> str:
    """What no training changes, and lies too far off to be drawn on the same axis."""
    shown = (cells(row, group, ["setting", "mean ± sd"]) for row in group if row.n_seeds is None)
    return "; ".join(f"{setting} {mean}" for setting, mean in shown)


def category_changes(sweep: LoggedSweep) -> Plot | None:
    """Δ of every category and setting as a map, one view a test split; the means where nothing is compared."""
    views = []
    for split in sweep.splits:
        start = f"{split}/{sweep.category_metric}/"
        rows = [row for row in sweep.category_rows if row.metric.startswith(start)]
        compared = [row for row in rows if row.delta is not None]
        if compared:
            data, layout = _map(compared, start)
        elif any(row.mean is not None for row in rows):
            data, layout = _bars(rows, start)
        else:
            continue
        views.append({"name": split, "data": data, "layout": layout})
    return {"views": views, "height": 130 + 25 * len(sweep.categories)} if views else None


def learning_curves(sweep: LoggedSweep, histories: Mapping[str, Mapping[int, float]]) -> Plot | None:
    """The validation metric by epoch: the mean over a setting's seeds, as far as all of them got.

    ``histories``: by run id, epoch -> value of ``val/<metric>``.
    """
    several = len({label for label, _ in sweep.settings}) > 1
    data = []
    longest = 0
    for place, ((label, setting), seeds) in enumerate(sweep.done.items()):
        curves = [_epochs(trial, histories) for trial in seeds.values()]
        shared = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
        if not shared:
            continue
        longest = max(longest, len(shared))
        values = [100 * sum(curve[epoch] for curve in curves) / len(curves) for epoch in shared]
        name = f"{label}, {setting}" if several else setting
        line = {"color": SERIES[place % len(SERIES)], "dash": DASHES[place // len(SERIES) % len(DASHES)], "width": 2}
        hover = f"{_plain(name)}<br>epoch %{{x}}: %{{y:.2f}}, mean of {len(curves)}<extra></extra>"
        points = {"x": [epoch + 1 for epoch in shared], "y": _rounded(values)}
        mode = "lines+markers" if len(shared) < 40 else "lines"
        trace = {"type": "scatter", "mode": mode, "name": _plain(name), "line": line, "marker": {"size": 5}}
        data.append(trace | points | {"hovertemplate": hover})
    if not data:
        return None
    layout = {
        "xaxis": {"title": {"text": "epoch"}, "dtick": 1 if longest <= 15 else None},
        "yaxis": {"title": {"text": f"val/{sweep.metric} (%)"}},
        "legend": LEGEND,
    }
    name = f"val/{sweep.metric}"
    return {"views": [{"name": name, "data": data, "layout": layout}], "height": 380 + 8 * len(data)}


def _curve(rows: Sequence[ResultRow], group: Sequence[ResultRow], sweep: LoggedSweep, scale: float) -> Plot:
    """Mean and interval against the number that a setting stands for, in powers of two; the others across it."""
    sizes = sorted(set(sweep.axis.values()))
    data = []
    for place, baseline in enumerate(dict.fromkeys(row.baseline for row in rows)):
        of_baseline = [row for row in rows if row.baseline == baseline]
        curve = sorted(
            (row for row in of_baseline if row.setting in sweep.axis), key=lambda row: sweep.axis[row.setting]
        )
        data.append(_curve_line(curve, group, sweep, scale, SERIES[place % len(SERIES)]))
        others = [row for row in of_baseline if row.setting not in sweep.axis]
        for style, row in zip(("dash", "dot", "dashdot", "longdash"), others, strict=False):
            colour = "--reference" if row.setting == sweep.reference else SERIES[(place + 2) % len(SERIES)]
            ends = {"x": [sizes[0] / 1.3, sizes[-1] * 1.3], "y": _rounded([scale * (row.mean or 0)] * 2)}
            line = {"color": colour, "dash": style, "width": 1.8}
            hover = {"customdata": [_hover(row, group)] * 2, "hovertemplate": "%{customdata}<extra></extra>"}
            data.append({"type": "scatter", "mode": "lines", "name": _label(row, group), "line": line} | ends | hover)
    layout = {
        "xaxis": {
            "type": "log",
            "tickvals": sizes,
            "ticktext": [str(size) for size in sizes],
            "title": {"text": _plain(sweep.description.axis_label)},
        },
        "yaxis": {"range": _range(rows, scale), "title": {"text": "%" if scale == 100 else ""}},
        "shapes": [
            _turned(shape) for shape in _reference_band(rows, sweep.reference, scale) if shape["type"] == "rect"
        ],
        "legend": LEGEND,
    }
    return {"data": data, "layout": layout}


def _curve_line(
    curve: Sequence[ResultRow], group: Sequence[ResultRow], sweep: LoggedSweep, scale: float, colour: str
) -> Plot:
    several = len({row.baseline for row in group if row.baseline}) > 1
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": _plain(curve[0].baseline) if several and curve else "mean and 95 % CI",
        "x": [sweep.axis[row.setting] for row in curve],
        "y": _rounded([scale * (row.mean or 0) for row in curve]),
        "error_y": {"type": "data", "array": _half_widths(curve, scale), "thickness": 1.4, "width": 4},
        "line": {"color": colour, "width": 2.4},
        "marker": {"size": 8},
        "customdata": [_hover(row, group) for row in curve],
        "hovertemplate": "%{customdata}<extra></extra>",
    }


def _turned(shape: Plot) -> Plot:
    """The same shape across the other axis."""
    swapped = {"x0": "y0", "x1": "y1", "y0": "x0", "y1": "x1", "yref": "xref"}
    return {swapped.get(key, key): value for key, value in shape.items()}


def _half_widths(rows: Sequence[ResultRow], scale: float) -> list[float]:
    ends = [(row.ci_high, row.mean) for row in rows]
    return _rounded([scale * (high - mean) if high is not None and mean is not None else 0.0 for high, mean in ends])


def _means(
    rows: Sequence[ResultRow], names: Sequence[str], reference: str, group: Sequence[ResultRow], scale: float
) -> Plot:
    """Filled where the difference is beyond noise, hollow where it is not."""
    colours = ["--reference" if row.setting == reference else "--accent" for row in rows]
    filled = [row.setting == reference or (row.delta is not None and not row.mark) for row in rows]
    inside = [colour if full else "--surface" for colour, full in zip(colours, filled, strict=True)]
    bars = {"type": "data", "array": _half_widths(rows, scale), "thickness": 1.6, "width": 5, "color": "--muted"}
    return {
        "type": "scatter",
        "mode": "markers",
        "x": _rounded([scale * (row.mean or 0) for row in rows]),
        "y": names,
        "error_x": bars,
        "marker": {"size": 11, "color": inside, "line": {"width": 2, "color": colours}},
        "customdata": [_hover(row, group) for row in rows],
        "hovertemplate": "%{customdata}<extra></extra>",
    }


def _seed_marks(rows: Sequence[ResultRow], names: Sequence[str], sweep: LoggedSweep, scale: float) -> Plot:
    xs, ys, texts = [], [], []
    for row, name in zip(rows, names, strict=True):
        for seed, values in sweep.results[row.baseline][row.setting].items():
            if row.metric in values:
                xs.append(scale * values[row.metric])
                ys.append(name)
                texts.append(f"{name}<br>seed {seed}: {scale * values[row.metric]:.2f}")
    marker = {"symbol": "line-ns", "size": 13, "line": {"width": 1.5, "color": "--seed"}}
    hover = {"customdata": texts, "hovertemplate": "%{customdata}<extra></extra>"}
    return {"type": "scatter", "mode": "markers", "x": _rounded(xs), "y": ys, "marker": marker, **hover}


def _published_marks(rows: Sequence[ResultRow], names: Sequence[str], scale: float) -> Iterator[Plot]:
    printed = [
        (scale * row.published, name) for row, name in zip(rows, names, strict=True) if row.published is not None
    ]
    if printed:
        marker = {"symbol": "diamond-open", "size": 11, "color": "--published", "line": {"width": 2}}
        yield {
            "type": "scatter",
            "mode": "markers",
            "x": _rounded([value for value, _ in printed]),
            "y": [name for _, name in printed],
            "marker": marker,
            "hovertemplate": "%{y}<br>the paper: %{x:.2f}<extra></extra>",
        }


def _reference_band(rows: Sequence[ResultRow], reference: str, scale: float) -> Iterator[Plot]:
    """The reference's interval behind all settings, where there is one baseline."""
    if len({row.baseline for row in rows}) > 1:
        return
    for row in rows:
        if row.setting == reference and row.mean is not None:
            across = {"yref": "paper", "y0": 0, "y1": 1, "layer": "below"}
            if row.ci_low is not None and row.ci_high is not None:
                ends = {"x0": scale * row.ci_low, "x1": scale * row.ci_high}
                yield {"type": "rect", "fillcolor": "--reference", "opacity": 0.1, "line": {"width": 0}} | ends | across
            at = {"x0": scale * row.mean, "x1": scale * row.mean}
            yield {"type": "line", "line": {"color": "--reference", "width": 1.2, "dash": "dot"}} | at | across


def _range(rows: Sequence[ResultRow], scale: float) -> list[float]:
    """What was measured or printed: a lone interval of two seeds must not flatten all others."""
    values = [scale * value for row in rows for value in (row.mean, row.published) if value is not None]
    ends = [
        scale * end for row in rows if (row.n_seeds or 0) > 2 for end in (row.ci_low, row.ci_high) if end is not None
    ]
    low, high = min(values + ends), max(values + ends)
    margin = 0.08 * (high - low) or 0.02 * abs(high) or 1.0
    return _rounded([low - margin, high + margin])


def _map(rows: Sequence[ResultRow], start: str) -> tuple[list[Plot], Plot]:
    columns = list(dict.fromkeys((row.baseline, row.setting) for row in rows))
    lines = list(dict.fromkeys(row.metric for row in rows))
    at = {(row.metric, row.baseline, row.setting): row for row in rows}
    grid = [[at.get((metric, *column)) for column in columns] for metric in lines]
    deltas = [[_points(row) for row in line] for line in grid]
    largest = max(abs(value) for line in deltas for value in line if value is not None) or 1.0
    one = len({baseline for baseline, _ in columns}) == 1
    trace = {
        "type": "heatmap",
        "x": [_plain(setting) if one else f"{_plain(baseline)}<br>{_plain(setting)}" for baseline, setting in columns],
        "y": [_plain(metric.removeprefix(start)) for metric in lines],
        "z": deltas,
        "zmin": -largest,
        "zmax": largest,
        "text": [[f"{_points(row):+.1f}{_faint(row)}" if row else "" for row in line] for line in grid],
        "texttemplate": "%{text}",
        "customdata": [[_hover(row, [row]) if row else "" for row in line] for line in grid],
        "hovertemplate": "%{customdata}<extra></extra>",
        "colorscale": [[0, "--down"], [0.5, "--even"], [1, "--up"]],
        "colorbar": {"title": {"text": "Δ"}, "thickness": 12, "outlinewidth": 0},
        "xgap": 2,
        "ygap": 2,
    }
    axes = {"xaxis": {"side": "top", "type": "category", "tickangle": 0 if len(columns) < 5 else -40}}
    return [trace], axes | {"yaxis": {"autorange": "reversed", "type": "category"}}


def _bars(rows: Sequence[ResultRow], start: str) -> tuple[list[Plot], Plot]:
    data = []
    for place, (baseline, setting) in enumerate(dict.fromkeys((row.baseline, row.setting) for row in rows)):
        shown = [row for row in rows if (row.baseline, row.setting) == (baseline, setting) and row.mean is not None]
        bars: Plot = {"type": "bar", "orientation": "h", "name": _plain(f"{baseline}, {setting}")}
        bars |= {"x": _rounded([100 * (row.mean or 0) for row in shown])}
        bars |= {"y": [_plain(row.metric.removeprefix(start)) for row in shown]}
        bars |= {"customdata": [_hover(row, [row]) for row in shown], "hovertemplate": "%{customdata}<extra></extra>"}
        data.append(bars | {"marker": {"color": SERIES[place % len(SERIES)]}})
    axes = {"xaxis": {"title": {"text": f"{_plain(start.rstrip('/'))} (%)"}, "rangemode": "tozero"}}
    return data, axes | {"yaxis": {"autorange": "reversed", "type": "category"}}


def _hover(row: ResultRow, group: Sequence[ResultRow]) -> str:
    mean, interval, delta, p = map(_plain, cells(row, group, ["mean ± sd", T_INTERVAL, "Δ", "p"]))
    lines = [_label(row, group), _plain(row.metric), f"{mean}, n = {row.n_seeds}"]
    lines += [f"95 % CI {interval}"] if interval else []
    lines += [f"Δ {delta}{f', p {p}' if p else ''}"] if delta else []
    return "<br>".join(lines)


def _label(row: ResultRow, group: Sequence[ResultRow]) -> str:
    several = len({other.baseline for other in group if other.baseline}) > 1
    return f"{_plain(row.baseline)}<br>{_plain(row.setting)}" if several else _plain(row.setting)


def _points(row: ResultRow | None) -> float | None:
    return None if row is None or row.delta is None else round(100 * row.delta, DECIMALS)


def _faint(row: ResultRow) -> str:
    return f" {row.mark}" if row.mark else ""


def _epochs(trial: LoggedTrial, histories: Mapping[str, Mapping[int, float]]) -> Mapping[int, float]:
    """The last step of a trial that is done is the value of the model that was kept, not an epoch."""
    history = histories.get(trial.run.run_id, {})
    return {step: value for step, value in history.items() if step != max(history)}


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, DECIMALS) for value in values]


def _plain(text: str) -> str:
    return escape(text, quote=False)
