"""Several hosts on one machine: network namespaces with addresses and host names of their own, joined by a switch.

Nothing outside the namespaces is touched, and nothing in them reaches further than the other hosts. Needs root.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

NETWORK = "10.77.0"


@dataclass
class Hosts:
    """Hosts by name; ``close`` ends every process on them and takes them down."""

    names: tuple[str, ...]
    logs: Path
    prefix: str = field(default_factory=lambda: f"ccim{os.getpid()}")
    _running: list[subprocess.Popen[bytes]] = field(default_factory=list, init=False)

    def __enter__(self) -> Hosts:
        switch = self._namespace("switch")
        self._ip("netns", "add", switch)
        self._ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        self._ip("-n", switch, "link", "set", "bridge", "up")
        for number, name in enumerate(self.names):
            host, port = self._namespace(name), f"port{number}"
            self._ip("netns", "add", host)
            self._ip("-n", host, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", switch)
            self._ip("-n", switch, "link", "set", port, "master", "bridge", "up")
            self._ip("-n", host, "addr", "add", f"{self.address(name)}/24", "dev", "eth0")
            self._ip("-n", host, "link", "set", "eth0", "up")
            self._ip("-n", host, "link", "set", "lo", "up")
        return self

    def __exit__(self, *error: object) -> None:
        for name in (*self.names, "switch"):
            namespace = self._namespace(name)
            listed = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False)
            for process in listed.stdout.split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(process), signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", namespace], check=False)
        for running in self._running:
            running.wait(timeout=30)

    def address(self, name: str) -> str:
        return f"{NETWORK}.{self.names.index(name) + 1}"

    def start(self, name: str, *command: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """A process of the host that goes on; what it prints is in ``logs``."""
        with (self.logs / f"{name}-{Path(command[0]).name}.log").open("ab") as log:
            process = subprocess.Popen(
                self._on(name, command), stdout=log, stderr=log, env={**os.environ, **(environment or {})}
            )
        self._running.append(process)
        return process

    def run(
        self, name: str, *command: str, environment: Mapping[str, str] | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._on(name, command),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            env={**os.environ, **(environment or {})},
        )

    def cut(self, name: str) -> None:
        """Pull the host's cable."""
        self._ip("-n", self._namespace(name), "link", "set", "eth0", "down")

    def wait_until_open(self, name: str, port: int, seconds: float = 120) -> None:
        """Wait until something on the host listens there."""
        probe = f"import socket; socket.create_connection(({self.address(name)!r}, {port}), 2)"
        wait_until(lambda: self.run(name, "python3", "-c", probe).returncode == 0, seconds, f"{name}:{port} to open")

    def _on(self, name: str, command: tuple[str, ...]) -> list[str]:
        named = ["unshare", "--uts", "--mount", "sh", "-c", 'hostname "$0" && exec "$@"', name]
        return ["ip", "netns", "exec", self._namespace(name), *named, *command]

    def _namespace(self, name: str) -> str:
        return f"{self.prefix}-{name}"

    @staticmethod
    def _ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)


def wait_until(happens: Callable[[], object], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not happens():
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.5)
