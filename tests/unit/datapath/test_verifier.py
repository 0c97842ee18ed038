"""What users read when the kernel refuses a program."""

import pytest

from axoneme.datapath.verifier import SHOWN_LINES, diagnose


def refused(log: str, name: str = "from_pod", reason: str = "Invalid argument") -> list[str]:
    return [
        f"libbpf: prog '{name}': BPF program load failed: {reason}\n",
        f"libbpf: prog '{name}': -- BEGIN PROG LOAD LOG --\n{log}-- END PROG LOAD LOG --\n",
        f"libbpf: prog '{name}': failed to load: -22\n",
        "libbpf: failed to load object 'endpoint'\n",
    ]


def test_the_program_and_the_end_of_its_log_are_shown() -> None:
    log = "".join(f"{line}: (b7) r0 = {line}\n" for line in range(1000)) + "R2 invalid mem access 'scalar'\n"
    found = diagnose(refused(log))
    assert found.subject == "program from_pod"
    assert found.log == log
    text = found.text()
    assert f"its last {SHOWN_LINES} of 1001 lines" in text
    assert text.endswith("R2 invalid mem access 'scalar'")
    assert len(text.splitlines()) == SHOWN_LINES + 1


@pytest.mark.parametrize(
    ("log", "lack"),
    [
        ("unknown func bpf_redirect_peer#155\n", "helper bpf_redirect_peer (for this type of program)"),
        (
            "program of this type cannot use helper bpf_sk_assign#124\n",
            "helper bpf_sk_assign (for this type of program)",
        ),
        ("invalid func unknown#211\n", "helper number 211"),
        (
            "calling kernel function bpf_xdp_ct_lookup is not allowed\n",
            "kernel function bpf_xdp_ct_lookup (for this type of program)",
        ),
        ("unknown opcode e6\n", "instruction e6: the object is compiled for a newer -mcpu"),
        ("BPF_LDX uses reserved fields\n", "instructions of -mcpu=v4"),
    ],
)
def test_what_the_kernel_lacks_is_named(log: str, lack: str) -> None:
    found = diagnose(refused(log))
    assert found.lacks == (lack,)
    assert found.text().startswith(f"this kernel lacks {lack}\n")


def test_advice_for_programs_that_are_too_large() -> None:
    found = diagnose(refused("BPF program is too large. Processed 1000001 insn\n"))
    assert found.lacks == ()
    assert found.advice == ("it has too many paths (1000001 steps)",)


def test_a_map_that_cannot_be_made_is_named() -> None:
    found = diagnose(["libbpf: map 'flows': failed to create: Cannot allocate memory(-12)\n"])
    assert found.subject == "map flows"
    assert "failed to create: Cannot allocate memory" in found.text()


def test_silence_is_no_error() -> None:
    assert diagnose([]).text() == ""
