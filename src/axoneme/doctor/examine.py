"""The whole examination of one machine's node, or of all nodes of a sandbox at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from axoneme.agent.config import AgentConfig
from axoneme.doctor.checks import CHECKS
from axoneme.doctor.findings import Diagnosis, diagnose
from axoneme.doctor.gather import ask, devices, gather
from axoneme.net import kernel, netns


@dataclass(frozen=True, slots=True)
class Patient:
    """A node: its configuration, and the file of its network namespace; None: the one we are in."""

    config: AgentConfig
    namespace: Path | None = None

    @contextmanager
    def inside(self) -> Iterator[None]:
        with ExitStack() as stack:
            if self.namespace is not None:
                descriptor = stack.enter_context(netns.opened(self.namespace))
                stack.enter_context(kernel.inside(descriptor))
            yield


def examine(patients: Mapping[str, Patient]) -> Diagnosis:
    """By node's name. Takes as long as the slowest probe: some seconds where packets get lost."""
    before = {}
    for name, patient in patients.items():
        with patient.inside():
            before[name] = devices()
    with ThreadPoolExecutor(max_workers=16) as pool:
        words = dict(zip(patients, pool.map(lambda each: ask(each.config), patients.values()), strict=True))
    facts = {}
    for name, patient in patients.items():
        with patient.inside():
            facts[name] = gather(patient.config, words[name], before[name])
    return diagnose(CHECKS, facts)
