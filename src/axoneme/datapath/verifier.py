"""What libbpf and the kernel's verifier say when they refuse an object, made readable.

Pure: their messages in, a `Diagnosis` out. The verifier's log of a large program has hundreds of
thousands of lines, of which the last few matter; and what it says of a kernel that is too old ("invalid
func unknown#155") does not name the lack. Messages differ between kernels: each pattern names where it
is from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

#: Lines of the verifier's log that an error shows.
SHOWN_LINES: Final = 24

_FAILED_PROGRAM = re.compile(r"prog '([^']+)': (?:BPF program load failed|failed to load|-- BEGIN)")
_FAILED_MAP = re.compile(r"map '([^']+)': failed to (?:create|pin|set|auto-pin|init)")
_LOG = re.compile(r"-- BEGIN PROG LOAD LOG --\n(.*?)-- END PROG LOAD LOG --", re.DOTALL)

#: What to look for, and how to say it.
_LACKS: Final = tuple(
    (re.compile(pattern), text)
    for pattern, text in (
        # "unknown func bpf_foo#12" up to 6.9; "program of this type cannot use helper bpf_foo#12" since.
        (r"(?:unknown func|cannot use helper) bpf_(\w+)#\d+", "helper bpf_{0} (for this type of program)"),
        (r"invalid func (?:unknown)?#?(\d+)", "helper number {0}"),
        (r"calling kernel function (\w+) is not allowed", "kernel function {0} (for this type of program)"),
        (r"extern \(func ksym\) '(\w+)': not found", "kernel function {0}"),
        (r"unknown opcode ([0-9a-f]+)", "instruction {0}: the object is compiled for a newer -mcpu"),
        (r"BPF_(?:LDX|JA|ALU64|ALU|JMP32) uses reserved fields", "instructions of -mcpu=v4"),
        (r"relocation decision .*? <.*?> (.*?)\n?.*invalid CO-RE", "the field {0}"),
        (r"<invalid CO-RE relocation>", "a structure or field that the object reads by CO-RE"),
    )
)
_ADVICE: Final = tuple(
    (re.compile(pattern), text)
    for pattern, text in (
        (r"BPF program is too large\. Processed (\d+) insn", "it has too many paths ({0} steps)"),
        (r"The sequence of (\d+) jumps is too complex", "it has too many branches in a row ({0})"),
        (
            r"combined stack size of (\d+) calls is (\d+)",
            "its calls need {1} bytes of stack; 512 are the limit",
        ),
        (r"(?:Looks like|stack depth) .*?(\d+).*? exceeds", "it needs too much stack ({0} bytes)"),
        (r"Operation not permitted", "it needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"),
    )
)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why an object was refused."""

    subject: str  # "program from_pod", "map flows"; empty when unknown
    lacks: tuple[str, ...]  # what the kernel does not have
    advice: tuple[str, ...]
    log: str  # the verifier's, whole
    messages: str  # libbpf's, without that log

    def text(self) -> str:
        """For people: lacks and advice, libbpf's messages, the end of the log."""
        lines = [f"this kernel lacks {lack}" for lack in self.lacks]
        lines.extend(self.advice)
        source = self.log.strip() or self.messages.strip()
        if source:
            shown = source.splitlines()
            left_out = len(shown) - SHOWN_LINES
            title = "the verifier's log" if self.log.strip() else "libbpf said"
            lines.append(
                f"{title} (its last {SHOWN_LINES} of {len(shown)} lines):" if left_out > 0 else f"{title}:"
            )
            lines.extend("  " + line for line in shown[-SHOWN_LINES:])
        return "\n".join(lines)


def diagnose(messages: Sequence[str]) -> Diagnosis:
    """From all that libbpf printed while it opened or loaded an object."""
    whole = "".join(messages)
    logs: list[str] = _LOG.findall(whole)
    log = logs[-1] if logs else ""
    rest = _LOG.sub("(the verifier's log)", whole)
    subject = ""
    if (failed := _FAILED_PROGRAM.search(whole)) is not None:
        subject = f"program {failed[1]}"
    elif (failed := _FAILED_MAP.search(whole)) is not None:
        subject = f"map {failed[1]}"
    return Diagnosis(subject, _matches(_LACKS, whole)[:1], _matches(_ADVICE, whole), log, rest)


def _matches(patterns: Sequence[tuple[re.Pattern[str], str]], text: str) -> tuple[str, ...]:
    hits = ((form, pattern.search(text)) for pattern, form in patterns)
    return tuple(form.format(*hit.groups()) for form, hit in hits if hit is not None)
