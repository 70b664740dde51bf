"""Known holes in the installed packages, and secrets in the repository that the baseline does not know.

Exit status 1 where one is found, 3 where the source of advisories could not be reached: then nothing is known of holes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BASELINE = ".secrets.baseline"


def holes() -> int:
    """1 where a package has a known hole, 3 where none could be asked for.

    A mirror of the package index may answer without knowing advisories; pip-audit then finds nothing in no package.
    """
    options = ("--skip-editable", "--progress-spinner", "off", "--timeout", "10", "--format", "json")
    command = [sys.executable, "-m", "pip_audit", *options]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    try:
        packages = json.loads(ended.stdout)["dependencies"]
    except (ValueError, KeyError):
        words = ended.stderr.strip().splitlines() or ["no word"]
        print(f"NOT AUDITED: pip-audit gave no answer ({words[-1][:200]})")
        return 3
    asked = [package for package in packages if "vulns" in package]
    with_holes = [package for package in asked if package["vulns"]]
    for package in with_holes:
        names = ", ".join(found["id"] for found in package["vulns"])
        print(f"{package['name']} {package['version']} has known holes: {names}")
    unknown = [package["name"] for package in packages if "not found" in package.get("skip_reason", "")]
    if not asked:
        print(f"NOT AUDITED: no advisories of any of {len(unknown)} packages can be had from here; run it elsewhere")
        return 3
    print(f"{len(with_holes)} of {len(asked)} packages have known holes; not audited: {', '.join(unknown) or 'none'}")
    return 1 if with_holes else 0


def secrets() -> int:
    """Status of detect-secrets over the files that git knows."""
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, check=True, cwd=ROOT)
    files = [name for name in listed.stdout.split("\0") if name and name != BASELINE]
    command = [sys.executable, "-m", "detect_secrets.pre_commit_hook", "--baseline", BASELINE, *files]
    status = subprocess.run(command, check=False, cwd=ROOT).returncode
    if status == 0:
        print(f"no secret in {len(files)} files beside those that {BASELINE} knows")
    return status


if __name__ == "__main__":
    found = [secrets(), holes()]
    sys.exit(next((status for status in found if status), 0))
