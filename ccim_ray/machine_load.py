"""How busy a machine is: CPU, memory, disk and GPUs, under the names of MLflow's own system metrics."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from pathlib import Path

GPU_QUERY = ("utilization.gpu", "memory.used", "memory.total", "power.draw")
MEBIBYTE = 1024**2 / 1e6
"""In megabytes: nvidia-smi counts in the former, MLflow's names say the latter."""


class MachineLoad:
    """Of this machine; ``folder`` lies on the disk that is looked at.

    What cannot be read, as GPUs where there are none, is left out. Not by MLflow's own monitor, which needs two more
    packages on every machine and writes to MLflow from each of them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder if folder.exists() else Path("/")  # another machine may not have it
        self._has_gpus = shutil.which("nvidia-smi") is not None
        self._cpu_before = _cpu_times()

    def sample(self) -> dict[str, float]:
        """Shares in percent, sizes in megabytes, power in watts; of CPUs the share since the last sample."""
        disk = shutil.disk_usage(self._folder)
        found = {
            "disk_usage_percentage": 100 * disk.used / (disk.used + disk.free),
            "disk_usage_megabytes": disk.used / 1e6,
            "disk_available_megabytes": disk.free / 1e6,
        }
        now = _cpu_times()
        if now and self._cpu_before and (passed := now[1] - self._cpu_before[1]):
            found["cpu_utilization_percentage"] = 100 * (now[0] - self._cpu_before[0]) / passed
        self._cpu_before = now
        return found | _memory() | (_gpus() if self._has_gpus else {})


def _cpu_times() -> tuple[int, int] | None:
    """Time that all CPUs were busy, and all time, in ticks since the machine started; None where Linux is not."""
    with contextlib.suppress(OSError), Path("/proc/stat").open() as statistics:
        user, nice, system, idle, waiting, *rest = map(int, statistics.readline().split()[1:9])
        busy = user + nice + system + sum(rest)
        return busy, busy + idle + waiting
    return None


def _memory() -> dict[str, float]:
    with contextlib.suppress(OSError):
        in_kb = dict(re.findall(r"^(\w+): +(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE))
        total, available = (1.024e-3 * int(in_kb[name]) for name in ("MemTotal", "MemAvailable"))
        used = total - available
        return {"system_memory_usage_megabytes": used, "system_memory_usage_percentage": 100 * used / total}
    return {}


def _gpus() -> dict[str, float]:
    command = ["nvidia-smi", f"--query-gpu={','.join(GPU_QUERY)}", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return {}
    found = {}
    for number, line in enumerate(lines):
        values = dict(zip(GPU_QUERY, line.split(","), strict=False))
        known = {name: float(value) for name, value in values.items() if re.fullmatch(r" *\d+(\.\d+)?", value)}
        if "utilization.gpu" in known:
            found[f"gpu_{number}_utilization_percentage"] = known["utilization.gpu"]
        if {"memory.used", "memory.total"} <= known.keys():
            used, total = known["memory.used"], known["memory.total"]
            found[f"gpu_{number}_memory_usage_megabytes"] = used * MEBIBYTE
            found[f"gpu_{number}_memory_usage_percentage"] = 100 * used / total
        if "power.draw" in known:
            found[f"gpu_{number}_power_usage_watts"] = known["power.draw"]
    return found
