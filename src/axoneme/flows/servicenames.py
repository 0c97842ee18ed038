"""Which services numbers stand for: `axoneme.flows.rules` says it, encoding and filters ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from axoneme.flows.events import Mask, Records


class ServicePort(NamedTuple):
    """As `axoneme.services.balanced.Balanced` has them: ``shop/web``, and a port's name or ``80/TCP``."""

    name: str
    port: str

    @property
    def split(self) -> tuple[str, str]:
        """Namespace, "" where it has none, and name."""
        namespace, _, name = self.name.rpartition("/")
        return namespace, name


class ServiceNames:
    """Never forgets: flows that called a deleted service can still be explained."""

    def __init__(self) -> None:
        self._known: dict[int, ServicePort] = {}
        self._highest = 0
        #: Rises with every number that gets a new meaning.
        self.version = 0

    def put(self, number: int, service: ServicePort) -> None:
        self._known[number] = service
        self._highest = max(self._highest, number)
        self.version += 1

    def get(self, number: int) -> ServicePort | None:
        return self._known.get(number)

    def where(self, accepts: Callable[[ServicePort], bool]) -> npt.NDArray[np.uint32]:
        """The numbers of the services that a test accepts."""
        return np.array([number for number, each in self._known.items() if accepts(each)], np.uint32)

    def knows_not(self, records: Records) -> bool:
        """Whether these flows called services of which nobody has told yet: new ones have higher numbers."""
        return int(records["service"].max(initial=0)) > self._highest


class ServiceSet:
    """The flows whose service a test accepts; tests all of them anew when others have come."""

    def __init__(self, names: ServiceNames, accepts: Callable[[ServicePort], bool]) -> None:
        self._names = names
        self._accepts = accepts
        self._seen = -1
        self._numbers = np.zeros(0, np.uint32)

    def __call__(self, numbers: npt.NDArray[np.uint32]) -> Mask:
        if self._seen != self._names.version:
            self._numbers, self._seen = self._names.where(self._accepts), self._names.version
        return np.isin(numbers, self._numbers)
