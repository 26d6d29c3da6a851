"""One measure: a contestant, a workload, a kind of body. It travels to child processes in the environment."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from functools import cache

VARIABLE = "I3TASKS_BENCHMARK"
WORKLOADS = ("drain", "io", "latency", "load", "enqueue", "start", "push")


@dataclass(frozen=True, slots=True)
class Services:
    """Where the services of a run listen, and their process ids by name."""

    postgres: str = ""
    """The folder of its socket; its port is 5432, its user `bench`."""
    redis_port: int = 0
    google: str = ""
    """`host:port` of Google's emulator."""
    embedded: str = ""
    """`host:port` of the project's own emulator."""
    pids: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measure:
    contestant: str
    variant: str
    workload: str
    kind: str
    record: str
    """The file that the bodies append to."""
    log: str
    run_id: str
    """For names in stores that outlive the measure, so that each is new."""
    http_port: int
    """Where a contestant that is pushed to listens."""
    services: Services = field(default_factory=Services)
    limit: float = 60.0
    """Seconds that the tasks may take."""
    scale: float = 1.0
    """Multiplies the number of tasks of `drain`, `enqueue` and `push`."""
    rate: float = 0.0
    """Tasks a second beside the measured ones, for `load`."""

    @property
    def words(self) -> tuple[str, ...]:
        """The words that make up the variant."""
        return tuple(word for word in self.variant.split("_") if word)

    @property
    def emulator(self) -> str:
        """`host:port` of the emulator that the variant is on."""
        return self.services.embedded if "embedded" in self.words else self.services.google

    def environment(self) -> dict[str, str]:
        """The environment of its processes."""
        # Compiled code is kept: what pip has installed for others is compiled already.
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        return {
            **inherited,
            VARIABLE: json.dumps(asdict(self)),
            "DJANGO_SETTINGS_MODULE": "tests.benchmarks.project.settings",
            "PYTHONPATH": os.environ.get("PYTHONPATH") or os.getcwd(),
            "PYTHONUNBUFFERED": "1",
            "PYTHONWARNINGS": "ignore",
            **({"PUBSUB_EMULATOR_HOST": self.emulator} if self.emulator else {}),
            "GOOGLE_CLOUD_PROJECT": "bench",
        }

    @staticmethod
    @cache
    def current() -> Measure:
        """The measure that this process takes part in."""
        given = json.loads(os.environ[VARIABLE])
        return Measure(**{**given, "services": Services(**given["services"])})
