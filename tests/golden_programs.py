"""Test files that print, run as programs, what tests/golden keeps: on kernels that give the same bits on any x86-64."""

import os
import platform
import subprocess
import sys

import pytest

SAME_ON_EVERY_X86 = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OMP_NUM_THREADS": "1",
}

kept_for_x86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="kept for x86-64")


def printed_by(program):
    """What this Python file prints."""
    environment = os.environ | SAME_ON_EVERY_X86
    return subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, check=True).stdout
