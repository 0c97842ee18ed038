"""Random events for a policy engine, kept in step with the `Scenario` that they lead to."""

from __future__ import annotations

import random

from axoneme.model.policy import Enforcement, Network
from oracle.scenarios import (
    NAMESPACES,
    Scenario,
    give_fixed_identities,
    give_prefixes,
    some_group,
    some_key,
    some_labels,
    some_named_ports,
    some_policies,
    some_service,
)


class Course:
    """A scenario and an engine through which the same events go."""

    def __init__(self, scenario: Scenario, rule_bits: int = 32) -> None:
        self.scenario = scenario
        self.engine = scenario.engine(rule_bits=rule_bits)
        self._given: frozenset[Network] = self.engine.needed_prefixes()

    def step(self, rng: random.Random) -> None:
        """One event, and at once what an agent does about the prefixes that are needed then."""
        events = [self.policy] * 6 + [self._identity] * 3 + [self._subject] * 2
        events += [self._named_ports, self._named_ports, self.group, self.service, self._enforcement]
        events += [self._audit] * self.scenario.above
        rng.choice(events)(rng)
        self._given = give_prefixes(self.engine, self._given)
        give_fixed_identities(self.engine)

    def policy(self, rng: random.Random) -> None:
        key = some_key(rng, rng.randrange(8))
        if key in self.scenario.policies and rng.random() < 0.4:
            del self.scenario.policies[key]
            self.engine.remove_policy(key)
            return
        policies = some_policies(rng, key, self.scenario.above)
        if key in self.scenario.policies and rng.random() < 0.5:
            # An edit: most of the object stays as it was.
            policies = (*self.scenario.policies[key][:1], *policies[1:])
        self.scenario.policies[key] = policies
        self.engine.upsert_policy(key, policies)

    def _identity(self, rng: random.Random) -> None:
        number = 256 + rng.randrange(10)
        if number in self.scenario.pods and rng.random() < 0.7:
            del self.scenario.pods[number]
            self.engine.remove_identity(number)
            self._leave(number)
            self.scenario.named_ports.pop(number, None)
            self.engine.set_named_ports(number, {})
        else:
            self.scenario.pods[number] = some_labels(rng)
            self.engine.upsert_identity(number, self.scenario.pods[number])

    def _subject(self, rng: random.Random) -> None:
        number = rng.choice([*self.scenario.pods, 4, 5])
        if number in self.scenario.subjects:
            self._leave(number)
        else:
            self.scenario.subjects.add(number)
            self.engine.add_subject(number)

    def _leave(self, number: int) -> None:
        self.scenario.subjects.discard(number)
        self.engine.remove_subject(number)

    def _named_ports(self, rng: random.Random) -> None:
        if self.scenario.pods:
            number = rng.choice(list(self.scenario.pods))
            self.scenario.named_ports[number] = some_named_ports(rng)
            self.engine.set_named_ports(number, self.scenario.named_ports[number])

    def group(self, rng: random.Random) -> None:
        name = rng.choice(("partners", "offices"))
        if rng.random() < 0.4:
            self.scenario.groups.pop(name, None)
            self.engine.remove_cidr_group(name)
        else:
            self.scenario.groups[name] = some_group(rng, name)
            self.engine.upsert_cidr_group(self.scenario.groups[name])

    def service(self, rng: random.Random) -> None:
        key = (rng.choice(NAMESPACES), rng.choice(("one", "two")))
        if rng.random() < 0.4:
            self.scenario.services.pop(key, None)
            self.engine.remove_service(*key)
        else:
            self.scenario.services[key] = some_service(rng, *key)
            self.engine.upsert_service(self.scenario.services[key])

    def _audit(self, rng: random.Random) -> None:
        number = rng.choice([*self.scenario.pods, 4, 5])
        self.scenario.audited ^= {number}
        self.engine.set_audited(number, number in self.scenario.audited)

    def _enforcement(self, rng: random.Random) -> None:
        self.scenario.enforcement = rng.choice(list(Enforcement))
        self.engine.set_enforcement(self.scenario.enforcement)
