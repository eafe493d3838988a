"""What a load test is told by the environment."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

RUN_TIME = re.compile(r"(\d+h)?(\d+m)?(\d+s?)?")


@dataclass(frozen=True, slots=True)
class Options:
    """One load test.

    Args:
        users: Senders at once (`LOAD_USERS`); each makes at most 25 requests a second.
        spawn: Senders that start in a second (`LOAD_SPAWN`).
        runtime: How long it runs, as Locust reads it (`LOAD_RUNTIME`).
        host: The service, as `http://host:port` (`LOAD_HOST`); None starts one.
        api_key: A key of that service with the scopes ingest and read (`LOAD_API_KEY`).
        seed: Of the events (`LOAD_TEST_SEED`).
        batch: Events of one request (`LOAD_BATCH`).
        reports: Folder of what it writes (`LOAD_REPORTS`).
    """

    users: int = 20
    spawn: float = 20.0
    runtime: str = "30s"
    host: str | None = None
    api_key: str | None = None
    seed: int = 20260315
    batch: int = 100
    reports: Path = Path("reports/load")

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Reads the environment; a variable that is unset or empty has its default.

        Raises:
            ValueError: A variable is no number or out of its range.
        """
        names = {"seed": "LOAD_TEST_SEED"}
        kinds = {"users": int, "spawn": float, "seed": int, "batch": int, "reports": Path}
        values = {}
        for name in cls.__slots__:
            variable = names.get(name, f"LOAD_{name.upper()}")
            if text := environment.get(variable):
                try:
                    values[name] = kinds.get(name, str)(text)
                except ValueError:
                    raise ValueError(f"Expected {variable} to be a number.") from None
        found = cls(**values)
        if not (found.users > 0 and found.spawn > 0 and 0 < found.batch <= 200_000):
            raise ValueError("Expected LOAD_USERS and LOAD_SPAWN above 0, LOAD_BATCH 1..200000.")
        if not (found.runtime and RUN_TIME.fullmatch(found.runtime)):
            raise ValueError("Expected LOAD_RUNTIME like 90s, 5m or 1h30m.")
        if found.host and not found.api_key:
            raise ValueError("Expected LOAD_API_KEY beside LOAD_HOST.")
        return found

    def environment(self) -> dict[str, str]:
        """The same options for a process of their own."""
        values = {name: getattr(self, name) for name in self.__slots__}
        values["TEST_SEED"] = values.pop("seed")
        return {
            f"LOAD_{name.upper()}": str(value)
            for name, value in values.items()
            if value is not None
        }
