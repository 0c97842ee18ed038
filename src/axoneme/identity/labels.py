"""Which of a pod's labels make up its identity.

Every distinct set of identity labels costs a number, and an entry in each policy table that selects it.
So labels that tell one pod from its siblings stay out, and users can say more about theirs, in the
words that Cilium's ``labels`` option uses: ``k8s:app`` is a label that counts, ``k8s:!build`` one that
does not. The source is optional. The rest is a regular expression for the beginning of the key.

For one key the longest match among the words that include is compared with the shortest among those
that exclude; the longer one decides, exclusion on a draw. A key that no word matches counts, unless the
user has said what counts: from the first word of theirs that includes, nothing else does but what the
defaults include.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from axoneme.model.labels import CLUSTER, K8S, NAMESPACE, NAMESPACE_LABELS, SERVICE_ACCOUNT, Label, Labels

#: The label that every namespace carries with its own name.
NAMESPACE_NAME = "kubernetes.io/metadata.name"

DEFAULTS = (
    r"reserved:.*",
    # What we say ourselves about a pod, and what the common labels of applications say.
    r"io\.kubernetes\.pod\.namespace",
    r"io\.cilium\.k8s\.namespace\.labels",
    r"io\.cilium\.k8s\.policy\.cluster",
    r"io\.cilium\.k8s\.policy\.serviceaccount",
    r"app\.kubernetes\.io",
    # What controllers write: different for every pod, or with every release.
    r"!io\.kubernetes",
    r"!kubernetes\.io",
    r"!statefulset\.kubernetes\.io/pod-name",
    r"!apps\.kubernetes\.io/pod-index",
    r"!batch\.kubernetes\.io/job-completion-index",
    r"!batch\.kubernetes\.io/controller-uid",
    r"!.*beta\.kubernetes\.io",
    r"!k8s\.io",
    r"!pod-template-generation",
    r"!pod-template-hash",
    r"!controller-revision-hash",
    r"!controller-uid",
    r"!annotation.*",
    r"!etcd_node",
    r"!topology\.kubernetes\.io",
)


@dataclass(frozen=True, slots=True)
class Word:
    """One word: whether keys that begin with ``pattern`` count. An empty source stands for all."""

    source: str
    pattern: re.Pattern[str]
    include: bool

    @classmethod
    def parse(cls, text: str) -> Word:
        source, colon, rest = text.partition(":")
        if not colon:
            source, rest = "", text
        exclude = rest.startswith("!")
        key = rest.removeprefix("!")
        if not key:
            raise ValueError(f"label filter {text!r}: no key; expected words such as k8s:app or k8s:!build")
        try:
            return cls(source, re.compile(key), not exclude)
        except re.error as error:
            raise ValueError(f"label filter {text!r}: not a regular expression: {error}") from error

    def length(self, label: Label) -> int | None:
        """How much of the label's key the word matches, None for nothing."""
        if self.source not in ("", label.source):
            return None
        found = self.pattern.match(label.key)
        return found.end() if found else None


_DEFAULT_WORDS = tuple(map(Word.parse, DEFAULTS))


@dataclass(frozen=True)
class LabelFilter:
    """Decides which labels count. ``words`` are the user's, besides the defaults."""

    words: tuple[Word, ...] = ()
    _decided: dict[tuple[str, str], bool] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def parse(cls, texts: Iterable[str]) -> LabelFilter:
        """Each text holds one word or several with space between; ValueError names a wrong word."""
        return cls(tuple(Word.parse(word) for text in texts for word in text.split()))

    def counts(self, label: Label) -> bool:
        key = (label.source, label.key)
        if key not in self._decided:
            self._decided[key] = self._decide(label)
        return self._decided[key]

    def apply(self, labels: Iterable[Label]) -> Labels:
        return Labels(filter(self.counts, labels))

    def _decide(self, label: Label) -> bool:
        matches = [(word, word.length(label)) for word in (*_DEFAULT_WORDS, *self.words)]
        includes = [length for word, length in matches if length is not None and word.include]
        excludes = [length for word, length in matches if length is not None and not word.include]
        if not includes and not excludes:
            return not any(word.include for word in self.words)
        return max(includes, default=-1) > min(excludes, default=-1)


def pod_labels(
    own: Mapping[str, str],
    *,
    namespace: str,
    namespace_labels: Mapping[str, str] | None = None,
    service_account: str = "",
    cluster: str = "",
) -> Labels:
    """All labels of a pod as policies see them; `LabelFilter.apply` leaves those of its identity.

    What the system says about a pod cannot be said by the pod itself: such labels of its own are
    ignored, because whoever may write a pod could otherwise speak as another namespace.
    """
    derived = {NAMESPACE: namespace, NAMESPACE_LABELS + NAMESPACE_NAME: namespace}
    for key, value in (namespace_labels or {}).items():
        derived.setdefault(NAMESPACE_LABELS + key, value)
    if service_account:
        derived[SERVICE_ACCOUNT] = service_account
    if cluster:
        derived[CLUSTER] = cluster
    said = {key: value for key, value in own.items() if not key.startswith(_OURS)}
    return Labels(Label(K8S, key, value) for key, value in {**said, **derived}.items())


_OURS = ("io.cilium.k8s.", NAMESPACE)
