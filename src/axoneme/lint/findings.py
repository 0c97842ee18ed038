"""Every trap: its code, how bad it is, why it is one, and the way out. Codes never change their meaning."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Severity(enum.Enum):
    """ERROR: the policy does not do what it says. WARNING: probably not what is meant, or not with what
    is known of the cluster. NOTE: right, and often misread."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Trap:
    code: str
    severity: Severity
    title: str
    why: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A trap that somebody stands in: ``what`` was found at ``path`` of the object."""

    trap: Trap
    kind: str
    namespace: str
    name: str
    origin: str
    path: str
    what: str

    @property
    def object(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


REFUSED = Trap(
    "AXO100",
    Severity.ERROR,
    "refused",
    "An object that is not understood in full is not taken at all, so nothing of it is enforced.",
    "Correct the field; what is not supported yet, docs/status.md says.",
)
EMPTY_RULE_NOBODY = Trap(
    "AXO101",
    Severity.NOTE,
    "an empty rule that means nobody",
    "In the Cilium kinds a rule without peers and ports means nobody; it only closes the direction.",
    "For all pods of the namespace write fromEndpoints: [{}], for everybody fromEntities: [all].",
)
EMPTY_RULE_BESIDE = Trap(
    "AXO102",
    Severity.WARNING,
    "an empty rule that makes the others meaningless",
    "In a NetworkPolicy an empty rule allows everybody on every port; the rules beside it add nothing.",
    "Take the empty rule away, or the others.",
)
EMPTY_RULE_EVERYBODY = Trap(
    "AXO103",
    Severity.NOTE,
    "an empty rule that allows everybody",
    "In a NetworkPolicy an empty rule allows everybody on every port, also the world outside.",
    "Name peers, if not everybody is meant; to close the direction leave the list empty.",
)
NO_PEERS = Trap(
    "AXO104",
    Severity.WARNING,
    "an empty list of peers selects nobody",
    "A list of peers that is there and empty matches nobody; an absent one matches everybody.",
    "Name the peers, or leave the field away.",
)
EMPTY_SECTION = Trap(
    "AXO105",
    Severity.WARNING,
    "an empty section is as if absent",
    "In the Cilium kinds it is a rule that closes a direction; an empty list of rules leaves it open.",
    "To close the direction write one empty rule: [{}].",
)
UNUSED_RULES = Trap(
    "AXO106",
    Severity.WARNING,
    "rules of a direction that policyTypes does not name",
    "Rules count only for the directions in policyTypes.",
    "Add the direction to policyTypes, or leave policyTypes away.",
)
INGRESS_ONLY = Trap(
    "AXO107",
    Severity.WARNING,
    "closes ingress alone",
    "Without policyTypes and without egress section a NetworkPolicy is about ingress only.",
    "policyTypes: [Ingress, Egress] closes both directions.",
)
END_PORT_IGNORED = Trap(
    "AXO108",
    Severity.WARNING,
    "endPort without effect",
    "A range cannot begin at a name: beside a named port endPort is passed over.",
    "Write the range with numbers.",
)
DNS_OVER_TCP = Trap(
    "AXO109",
    Severity.WARNING,
    "DNS over TCP alone",
    "In a NetworkPolicy a port without protocol is TCP, and DNS asks over UDP first.",
    "Add the port once more with protocol: UDP.",
)
OR_FOR_AND = Trap(
    "AXO110",
    Severity.NOTE,
    "two items are alternatives",
    "Items of a list are or-ed: all pods of those namespaces, and those pods of the policy's own namespace.",
    "For these pods in those namespaces put both selectors into one item (no '-' before the second).",
)
EMPTY_RULE_IDLE = Trap(
    "AXO111",
    Severity.WARNING,
    "an empty rule beside others means nobody",
    "In the Cilium kinds a rule without peers and ports means nobody; the others close the direction anyway.",
    "Take it away; or write fromEndpoints: [{}] for all pods of the namespace, fromEntities: [all] for all.",
)
TWICE = Trap(
    "AXO112",
    Severity.WARNING,
    "the same object twice",
    "Of two objects of one kind, namespace and name the later takes the place of the earlier.",
    "Give one of them another name.",
)
STAR_IN_LABEL = Trap(
    "AXO114",
    Severity.WARNING,
    "a star at the beginning of a name is not what is below it",
    "A star stays within one part of a name: *example.com means example.com and evilexample.com, which "
    "anybody may own, and not www.example.com.",
    'Write "*.example.com" for one part more, "**.example.com" for several; and the name itself beside it.',
)
CONTRADICTION = Trap(
    "AXO201",
    Severity.ERROR,
    "a selector that nothing can fulfil",
    "All requirements of a selector must hold at once, and a label has one value.",
    "For alternatives use one In with several values, or several items.",
)
NO_IDENTITY_LABEL = Trap(
    "AXO202",
    Severity.ERROR,
    "a label outside the identity is asked for",
    "Policies see only labels that make identities; those that differ from pod to pod stay out.",
    "Select by a label of the application; or let the label count (the agent's labels option).",
)
NO_IDENTITY_EXCLUSION = Trap(
    "AXO203",
    Severity.WARNING,
    "a label outside the identity is ruled out",
    "Policies see only labels that make identities, so the absence of this one always holds.",
    "Select by a label of the application; or let the label count (the agent's labels option).",
)
SELECTS_NO_POD = Trap(
    "AXO204",
    Severity.WARNING,
    "the policy selects no pod",
    "A policy that selects nobody protects nobody.",
    "Compare the selector with the pods' labels.",
)
PEER_IS_NO_POD = Trap(
    "AXO205",
    Severity.WARNING,
    "a peer that no pod is",
    "A selector that matches no pod allows, or denies, nothing.",
    "Compare the selector with the pods' labels; pods of other namespaces need a namespace in the selector.",
)
NO_SUCH_PORT = Trap(
    "AXO206",
    Severity.WARNING,
    "a port name that no pod has",
    "A named port is looked up on the pod that owns it: on the subject for ingress, on the peer for egress.",
    "Name the container's port, or write its number.",
)
NO_SUCH_SERVICE = Trap(
    "AXO207",
    Severity.WARNING,
    "a service that is not there",
    "toServices means the pods that the service selects, or the addresses in the EndpointSlices of one that "
    "selects none.",
    "Make the service, or correct the name.",
)
NO_SUCH_GROUP = Trap(
    "AXO208",
    Severity.WARNING,
    "a CIDR group that is not there",
    "A reference to a missing group means no address.",
    "Make the CiliumCIDRGroup, or correct the name.",
)
RANGE_OF_CLUSTER = Trap(
    "AXO301",
    Severity.ERROR,
    "a range inside the cluster matches nobody",
    "Ranges mean what is outside the cluster, never a pod or a node, whatever its address.",
    "Name pods by labels, nodes by the entities host and remote-node.",
)
RANGE_HOLDS_CLUSTER = Trap(
    "AXO302",
    Severity.WARNING,
    "a range that holds the cluster's addresses does not mean them",
    "Ranges mean what is outside the cluster, never a pod or a node, whatever its address.",
    "If pods or nodes are meant too, name them besides, by labels and entities.",
)
NOTHING_LEFT = Trap(
    "AXO303",
    Severity.ERROR,
    "the exceptions leave nothing of the range",
    "A range whose exceptions cover it matches no address.",
    "Correct the exceptions.",
)
SHADOWED = Trap(
    "AXO401",
    Severity.WARNING,
    "an allow that a deny covers completely",
    "A deny beats every allow, in whichever policy it stands and however wide it is.",
    "Take the allow away, or make the deny narrower.",
)
L7_NULLIFIED = Trap(
    "AXO402",
    Severity.ERROR,
    "an allow without L7 rules nullifies L7 rules",
    "Where one rule allows a port without L7 rules, everything passes there, whatever others restrict.",
    "Take the allow away, or give it the L7 rules too.",
)
NO_DNS_RULE = Trap(
    "AXO403",
    Severity.ERROR,
    "toFQDNs without DNS rules",
    "A name's addresses are learnt from answers in the DNS proxy, and only DNS rules send them there.",
    'Allow port 53 to the DNS server with rules: {dns: [{matchPattern: "*"}]} for the same pods.',
)
NEVER_REACHED = Trap(
    "AXO404",
    Severity.WARNING,
    "a rule that never decides",
    "In admin and baseline policies the first rule in order that covers a packet decides.",
    "Take the rule away, put it first, or make the earlier one narrower.",
)
NO_L7 = Trap(
    "AXO113",
    Severity.WARNING,
    "an empty list of L7 rules restricts nothing",
    "A port whose list of rules is empty is a port without rules: every request passes there.",
    "Write the rules; or, to let all pass and see it, one that is empty: [{}].",
)
NO_QUERY = Trap(
    "AXO405",
    Severity.NOTE,
    "a path that no query may follow",
    "A path is matched as a whole, with its query: /a does not match /a?b=1.",
    r"Where queries are meant to pass, let them: /a(\?.*)?",
)
LITERAL_HEADER = Trap(
    "AXO406",
    Severity.WARNING,
    "a header's value that looks like a pattern",
    "The values of headers are compared as they are written.",
    "Write valuePattern in headerMatches, which takes a regular expression.",
)


TRAPS: tuple[Trap, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Trap))
