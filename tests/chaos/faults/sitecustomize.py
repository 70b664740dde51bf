"""Loaded by every process of a job under test: kills the whole job at an exact place, which CHAOS_FAULT names.

A fault is ``{"event": ..., "match": ..., "count": ...}``: at the count-th event of all processes together whose text
matches, the file that is being written is left half written, the journal of kills gets a line, and every process of the
job is killed at once. Nothing of the product knows of it.

Events: ``replace`` (a file is about to take its name), ``step`` (of an optimiser), ``journal`` (an epoch is half
written), ``logged`` (MLflow has taken something, and the driver does not know yet), ``any`` of them.
``whom`` is ``job``, or ``process`` for the one in which the event happens.
"""

import fcntl
import importlib.machinery
import json
import os
import re
import signal
import sys
from pathlib import Path

KILLED_FILES = re.compile(r"/(worlds|derived|trials|sweeps)/")


def children(roots):
    """Ids of these processes and of all that descend from them."""
    parent_of = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            parent_of[int(entry)] = int(stat.rsplit(")", 1)[1].split()[1])
    found = set(roots)
    while grown := {child for child, parent in parent_of.items() if parent in found} - found:
        found |= grown
    return found


def kill_job(root):
    """SIGKILL to the job and everything that it started, this process last."""
    for pid in sorted(children({root}) - {os.getpid()}):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


class Fault:
    """Counts events over all processes of the job, and strikes once."""

    def __init__(self, folder, event, match="", count=1, whom="job"):
        self.folder, self.event, self.match, self.whom = Path(folder), event, re.compile(match), whom
        self.at = set(count) if isinstance(count, list) else {count}
        self.root = int(os.environ.setdefault("CHAOS_ROOT", str(os.getpid())))

    def happens(self, event, text, before_kill=lambda: None):
        if self.event not in ("any", event) or not self.match.search(text):
            return
        with (self.folder / "events").open("a+") as events:
            fcntl.flock(events, fcntl.LOCK_EX)
            events.seek(0)
            number = int(events.read() or 0) + 1
            events.truncate(0)
            events.write(str(number))
            events.flush()
            if number not in self.at:
                return
            before_kill()
            line = json.dumps({"event": event, "number": number, "at": text})
            with (self.folder / "kills.jsonl").open("a") as kills:
                kills.write(line + "\n")
            if self.whom == "job":
                kill_job(self.root)
            os.kill(os.getpid(), signal.SIGKILL)


def watch_files(fault):
    replace, write = os.replace, os.write

    def watched_replace(source, target, **kwargs):
        if KILLED_FILES.search(str(target)):
            half = lambda: os.truncate(source, Path(source).stat().st_size // 2)  # noqa: E731
            fault.happens("replace", str(target), half)
        return replace(source, target, **kwargs)

    def watched_write(descriptor, content):
        if bytes(content[:8]) == b'{"step":':
            path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
            fault.happens("journal", path, lambda: write(descriptor, content[: len(content) // 2]))
        return write(descriptor, content)

    os.replace, os.write = watched_replace, watched_write


def watch_training(training, fault):
    make_optimiser = training.make_optimiser

    def watched(*args):
        optimiser = make_optimiser(*args)
        optimiser.register_step_post_hook(lambda *_: fault.happens("step", "optimiser step"))
        return optimiser

    training.make_optimiser = watched


def watch_tracker(tracker, fault):
    for name in ("_log_metrics", "_create_run", "log_model", "log_artifacts", "finish"):
        method = getattr(tracker.Tracker, name)

        def watched(self, *args, _method=method, _name=name, **kwargs):
            result = _method(self, *args, **kwargs)
            fault.happens("logged", _name)
            return result

        setattr(tracker.Tracker, name, watched)


WATCHED = {"ccim_ray.training": watch_training, "ccim_ray.tracking.tracker": watch_tracker}


class Finder:
    """Finds the watched modules as usual, and wraps what they define once they are loaded."""

    def __init__(self, fault):
        self.fault = fault

    def find_spec(self, name, path=None, target=None):
        if name not in WATCHED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            WATCHED[name](module, self.fault)

        spec.loader.exec_module = exec_module
        return spec


if "CHAOS_FAULT" in os.environ:
    chosen = Fault(**json.loads(os.environ["CHAOS_FAULT"]))
    watch_files(chosen)
    sys.meta_path.insert(0, Finder(chosen))
