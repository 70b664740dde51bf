"""How a sweep's trials are shown in MLflow's page of runs: grouped by setting, with chosen columns and charts.

MLflow keeps a view that somebody shares as a tag of the experiment, and shows it where the address holds its key. The
form of the state is that of MLflow's own page (read by 3.17), which takes what it knows of it.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from typing import Any

VIEW_TAG = "mlflow.sharedViewState."
"""Of an experiment, with the view's key behind it."""

SECTION = "scores"
SETTING = "ccim.setting"


def comparison_view(sweep_id: str, curve: str, scores: Sequence[str], parameters: Sequence[str]) -> str:
    """Value of the tag for the trials of one sweep, oldest first, as means over the seeds of each setting.

    Args:
        curve: metric whose course over the epochs is drawn.
        scores: metrics that are a bar for each setting, and a column, as ``curve`` is.
        parameters: that are columns.
    """
    charts = [_chart("LINE", curve), *(_chart("BAR", score) for score in scores)]
    columns = [
        *(f"metrics.`{name}`" for name in (curve, *scores)),
        *(f"params.`{name}`" for name in parameters),
        "attributes.`Models`",
        "attributes.`Dataset`",
    ]
    state = {
        "searchFilter": f"tags.`ccim.kind` = 'trial' AND tags.`ccim.sweep` = '{sweep_id}'",
        "orderByKey": "attributes.start_time",
        "orderByAsc": True,
        "selectedColumns": columns,
        "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": SETTING}]},
        "useGroupedValuesInCharts": True,
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": charts,
        "compareRunSections": [{"uuid": SECTION, "name": SECTION, "display": True, "isReordered": True}],
        # Otherwise MLflow sorts the sections, and this one would stand behind those that it makes itself.
        "isAccordionReordered": True,
    }
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()
    return f"deflate;{packed}"


def view_path(experiment_id: str, sweep_id: str) -> str:
    """Where an MLflow server shows the view, behind its address."""
    return f"#/experiments/{experiment_id}/runs?compareRunsMode=CHART&viewStateShareKey={sweep_id}"


def _chart(kind: str, metric: str) -> dict[str, Any]:
    chart = {
        "uuid": f"{kind}-{metric}",
        "type": kind,
        "metricKey": metric,
        "displayName": metric,
        "metricSectionId": SECTION,
        "runsCountToCompare": 100,
        "deleted": False,
        "isGenerated": False,
    }
    if kind == "LINE":
        chart |= {
            "selectedMetricKeys": [metric],
            "lineSmoothness": 0,
            "xAxisKey": "step",
            "xAxisScaleType": "linear",
            "scaleType": "linear",
            "selectedXAxisMetricKey": "",
            "yAxisKey": "metric",
            "yAxisExpressions": [],
            "range": {},
            "useGlobalXaxisKey": True,
            "useGlobalLineSmoothing": True,
        }
    return chart
