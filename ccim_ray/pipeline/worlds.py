"""Rendering an embedded world with Ray Data: chunks of pictures in parallel, resumed chunk by chunk."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray.data

from ccim_ray.console import say, stage
from ccim_ray.datasets.confounded_scenes.counterfactuals import COUNTERFACTUALS_FILE
from ccim_ray.datasets.confounded_scenes.defects import PLANTED_FILE
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.datasets.confounded_scenes.world import (
    Chunk,
    claim_folder,
    finish_world,
    is_complete,
    planned_defects,
    world_plan,
    write_chunk,
)
from ccim_ray.datasets.groupwalk import NOTE
from ccim_ray.datasets.subject import COUNTERFACTUAL
from ccim_ray.errors import RequestError
from ccim_ray.pipeline.cluster import join_cluster, plain_errors
from ccim_ray.rates import Rates
from ccim_ray.storage import write_json


def render_world(settings: WorldSettings, root: Path, rates: Rates | None = None, defect_rate: float = 0.0) -> None:
    """Write the world under ``root`` unless it is there; chunks that an interrupted run finished are kept.

    Raises RequestError where the folder cannot be written.
    """
    if is_complete(settings, root, defect_rate):
        return
    claim_folder(settings, root, defect_rate)
    chunks = world_plan(settings)
    rows_folder = root / ".rows"
    open_chunks = [chunk for chunk in chunks if not _rows_path(rows_folder, chunk).exists()]
    say(f"Rendering {settings.pictures} pictures of the world confounded_scenes ({settings.like}) to {root}")
    with stage("render", "pictures", sum(chunk.stop - chunk.start for chunk in open_chunks)) as progress:
        if open_chunks:
            tasks = [asdict(chunk) for chunk in open_chunks]
            written = ray.data.from_items(tasks, override_num_blocks=len(tasks)).map(
                _write_chunk_task,  # type: ignore[arg-type]  # Ray types only functions without arguments of their own
                fn_kwargs={
                    "settings": settings.model_dump(),
                    "root": str(root),
                    "rows_folder": str(rows_folder),
                    "defect_rate": defect_rate,
                },
                num_cpus=1,
            )
            for row in written.iter_rows():
                progress.advance(row["pictures"])
    if rates:
        rates.record("render", progress.done, progress.seconds)
    try:
        rows = [row for chunk in chunks for row in json.loads(_rows_path(rows_folder, chunk).read_text())]
    except FileNotFoundError:
        if not is_complete(settings, root, defect_rate):
            raise  # if it is, another run finished the same world meanwhile, and cleared rows away
    else:
        finish_world(settings, rows, root, defect_rate)
    shutil.rmtree(rows_folder, ignore_errors=True)  # another run may be at it too


def make_world(settings: WorldSettings, out: Path, defect_rate: float = 0.0) -> int:
    """What ``jobs/make_confounded_scenes.py`` does; returns the exit status."""
    root = out.expanduser().absolute()
    planned = planned_defects(settings, defect_rate)
    join_cluster()
    with plain_errors():
        render_world(settings, root, defect_rate=defect_rate)
    say(f"Wrote {settings.images} pictures, annotations like {settings.like}, splits and truth to {root}")
    say(
        f"  beside them, in no annotation: {COUNTERFACTUAL}/, {settings.counterfactuals} subjects of test_do in another"
        f" scene ({COUNTERFACTUALS_FILE})"
    )
    if settings.like == "groupwalk":
        say(f"  groupwalk: {NOTE}")
    if planned.record is not None:
        say(f"Planted, as {PLANTED_FILE} lists them:")
        for kind, where in planned.defects.items():
            say(f"  {len(where)} x {kind}")
        for kind, where in planned.quirks.items():
            say(f"  {len(where)} x {kind} (no defect: must load)")
    return 0


def _rows_path(folder: Path, chunk: Chunk) -> Path:
    return folder / f"{chunk.split}-{chunk.start:06d}.json"


def _write_chunk_task(
    row: dict[str, Any], settings: dict[str, Any], root: str, rows_folder: str, defect_rate: float
) -> dict[str, int]:
    chunk = Chunk(**row)
    written = write_chunk(WorldSettings(**settings), chunk, Path(root), defect_rate)
    try:
        write_json(_rows_path(Path(rows_folder), chunk), written)  # last: its presence means the chunk is done
    except RequestError:
        # If the world is complete, another run cleared the folder away.
        if not is_complete(WorldSettings(**settings), Path(root), defect_rate):
            raise
    return {"pictures": len(written)}
