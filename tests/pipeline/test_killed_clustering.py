"""What a run that was killed while it clustered left behind is cleared away by the next one."""

import signal
import subprocess
import sys

from ccim_ray.confounders import ConfounderDictionary
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.pipeline.dictionaries import build_dictionaries
from ccim_ray.plan import make_plan
from ccim_ray.presets import default_experiment
from ccim_ray.rates import Rates
from ccim_ray.storage import Storage, scratch_folder

KILLED = """
import os, signal, sys
from pathlib import Path
from ccim_ray.storage import scratch_folder
with scratch_folder(Path(sys.argv[1])) as scratch:
    (scratch / "projected-000000.npy").write_bytes(bytes(100))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_projected_features_of_a_killed_run_go_and_those_of_another_stay(tmp_path):
    base = default_experiment("confounded_scenes", "smoke", WorldSettings(images=300))
    plan = make_plan([("CCIM", base)], (0,), Storage(tmp_path), None)
    (planned,) = plan.dictionaries
    folder = planned.path.parent
    killed = subprocess.run([sys.executable, "-c", KILLED, str(folder)], check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = (path for path in folder.iterdir() if path.is_dir())
    assert list(left.iterdir())
    ConfounderDictionary.random(planned.settings.size, 512).save(planned.path)
    with scratch_folder(folder) as in_use:
        build_dictionaries(plan, Rates(tmp_path / "rates.json"))
        assert [path for path in folder.iterdir() if path.is_dir()] == [in_use]
    assert list(folder.iterdir()) == [planned.path]
