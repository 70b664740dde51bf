"""Makes the pictures of the docs: the embedded world, MLflow's comparison of a sweep's trials, and the report.

    python docs/make_pictures.py STORAGE [CHROMIUM]

STORAGE is where `make sweep` wrote (runs); CHROMIUM the browser's program, by default `chromium` on the path.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote
from urllib.request import urlopen

from PIL import Image, ImageDraw

from ccim_ray.datasets.confounded_scenes.causal_model import CausalModel
from ccim_ray.datasets.confounded_scenes.render import render
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.reporting import ReportFlags, report

if TYPE_CHECKING:
    from playwright.sync_api import Page

PICTURES = Path(__file__).parent / "pictures"


def draw_world(path: Path, columns: int = 7, size: int = 160) -> None:
    """A row for each of four emotions, in scenes drawn as in training, boxes of the target person drawn."""
    model = CausalModel(WorldSettings(ambiguity=0.0))
    latents = model.draw("train", 600)
    truth = [model.categories[e] for e in latents.emotion_N]
    shown = ("Anger", "Fear", "Happy", "Sad")
    sheet = Image.new("RGB", (columns * (size + 4), len(shown) * (size + 20)), "white")
    pen = ImageDraw.Draw(sheet)
    for row, emotion in enumerate(shown):
        chosen = [i for i, name in enumerate(truth) if name == emotion][:columns]
        for column, i in enumerate(chosen):
            picture = render(latents.scenario(i), size)
            x, y = column * (size + 4), row * (size + 20)
            sheet.paste(Image.fromarray(picture.image_HWC), (x, y + 16))
            x1, y1, x2, y2 = picture.body_box
            pen.rectangle((x + x1, y + 16 + y1, x + x2 - 1, y + 16 + y2 - 1), outline=(255, 230, 0))
            pen.text((x + 2, y + 3), f"{emotion}, {latents.scene_name(i).replace('_', ' ')}", fill="black")
    sheet.quantize(192).save(path, optimize=True)


@contextlib.contextmanager
def mlflow_server(storage: Path) -> Iterator[str]:
    """MLflow on a free port of the loopback, as `mlflow ui` opens it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = Path(sys.executable).with_name("mlflow")
    store = f"sqlite:///{storage.absolute()}/mlflow.db"
    command = [str(program), "server", "--backend-store-uri", store, "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    quiet = subprocess.DEVNULL
    server = subprocess.Popen(command, stdout=quiet, stderr=quiet, env=environment, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            with contextlib.suppress(OSError), urlopen(f"{address}/health", timeout=1):
                break
            time.sleep(0.5)
        yield address
    finally:
        os.killpg(server.pid, 15)
        server.wait()


def photograph_mlflow(storage: Path, chromium: str) -> None:
    """A sweep's trials as charts and as a table, its own run, the comparison of its trials, its registered models."""
    from mlflow import MlflowClient
    from playwright.sync_api import sync_playwright

    client = MlflowClient(f"sqlite:///{storage.absolute()}/mlflow.db")
    experiment = client.get_experiment_by_name("confounded_scenes/dict_size")
    assert experiment is not None, f"{storage} holds no sweep of the dictionary size"
    of_experiment = f"#/experiments/{experiment.experiment_id}"
    (sweep, *_) = client.search_runs([experiment.experiment_id], "tags.`ccim.kind` = 'sweep'")
    runs = client.search_runs([experiment.experiment_id], "tags.`ccim.kind` = 'trial'")
    ids = [run.info.run_id for run in runs if run.data.params["seed"] == "0" and "dictionary.size" in run.data.params]
    compared = f"runs={quote(json.dumps(ids))}&experiments={quote(json.dumps([experiment.experiment_id]))}"
    sweep_id = sweep.data.tags["ccim.sweep"]
    pages = {
        "mlflow_charts.png": (f"{of_experiment}/runs?compareRunsMode=CHART&viewStateShareKey={sweep_id}", None),
        "mlflow_table.png": (f"{of_experiment}/runs?compareRunsMode=TABLE&viewStateShareKey={sweep_id}", None),
        "mlflow_run.png": (f"{of_experiment}/runs/{sweep.info.run_id}", None),
        "mlflow_compare.png": (f"#/compare-runs?{compared}", _compare_by_size),
        "mlflow_models.png": (f"#/models/confounded_scenes.dict_size.{sweep_id}", None),
    }
    with mlflow_server(storage) as address, sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        for name, (place, prepare) in pages.items():
            wide = 2000 if name == "mlflow_table.png" else 1440  # a table is as wide as its columns
            page = browser.new_page(viewport={"width": wide, "height": 900})
            page.goto(f"{address}/{place}")
            page.wait_for_timeout(6000)
            _click(page, "mlflow.assistant.chat_panel.close")
            if prepare:
                prepare(page)
            page.wait_for_timeout(3000)
            page.screenshot(path=str(PICTURES / name))
            page.close()
        browser.close()


def photograph_report(storage: Path, chromium: str) -> None:
    """The top of the report on everything that the storage's MLflow holds."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        report(ReportFlags(storage=str(storage), out=Path(folder)))
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 1500})
        page.goto((Path(folder) / "report.html").as_uri())
        page.wait_for_selector(".plot[data-drawn] .main-svg")
        page.screenshot(path=str(PICTURES / "report.png"))
        browser.close()


def _click(page: Page, component: str) -> None:
    button = page.locator(f"[data-component-id$='{component}']")
    if button.count():
        button.first.click()


def _compare_by_size(page: Page) -> None:
    """Put the size of the dictionary beside the accuracies on the parallel axes."""
    selects = page.locator(".du-bois-light-select-multiple")
    for select, wanted in ((0, ["dictionary.size"]), (1, ["test_id/accuracy", "test_do/accuracy"])):
        while selects.nth(select).locator(".du-bois-light-select-selection-item-remove").count():
            selects.nth(select).locator(".du-bois-light-select-selection-item-remove").first.click()
        for name in wanted:
            selects.nth(select).click()
            option = page.locator(f".du-bois-light-select-item-option[title='{name}']:visible")
            for _ in range(40):  # the list is drawn only where it is looked at
                if option.count():
                    break
                page.keyboard.press("ArrowDown")
            option.first.click()
            page.keyboard.press("Escape")


if __name__ == "__main__":
    storage = Path(sys.argv[1])
    PICTURES.mkdir(exist_ok=True)
    draw_world(PICTURES / "world.png")
    chromium = sys.argv[2] if len(sys.argv) > 2 else shutil.which("chromium") or "chromium"
    photograph_mlflow(storage, chromium)
    photograph_report(storage, chromium)
