"""How busy every machine of the cluster is. Only the driver writes it down: workers need not reach MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ccim_ray.machine_load import MachineLoad


class NodeLoads:
    """Of the driver's machine, and of each other one through an actor there that takes no CPU.

    Where there are others, names begin with ``node_<number>/``, as MLflow names them: 0 is the driver's machine, the
    others follow as they join.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._here = MachineLoad(folder)
        self._numbers: dict[str, int] = {}
        self._others: dict[str, Any] = {}
        self._asked: dict[Any, str] = {}

    def sample(self) -> dict[str, float]:
        """Of this machine now; of the others what they answered since the last sample, for none is waited for.

        Empty where Ray does not answer.
        """
        try:
            return self._sample()
        except ray.exceptions.RayError:  # the cluster is going; whoever waits for trials hears of it
            return {}

    def _sample(self) -> dict[str, float]:
        driver = ray.get_runtime_context().get_node_id()
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]} - {driver}  # type: ignore[no-untyped-call]
        here = self._here.sample()
        if not alive and not self._numbers:
            return here
        found = {f"node_0/{name}": value for name, value in here.items()}
        for node, loads in self._answers().items():
            found |= {f"node_{self._numbers[node]}/{name}": value for name, value in loads.items()}
        for node in sorted(alive - self._numbers.keys()):
            self._numbers[node] = len(self._numbers) + 1
            where = NodeAffinitySchedulingStrategy(node, soft=False)
            options: dict[str, Any] = {"num_cpus": 0, "scheduling_strategy": where}
            self._others[node] = ray.remote(MachineLoad).options(**options).remote(self._folder)
        for node in alive - set(self._asked.values()):
            self._asked[self._others[node].sample.remote()] = node
        return found

    def _answers(self) -> dict[str, dict[str, float]]:
        found = {}
        for answer in ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)[0] if self._asked else ():
            node = self._asked.pop(answer)
            try:
                found[node] = ray.get(answer)
            except ray.exceptions.RayError:  # its machine is gone
                continue
        return found
