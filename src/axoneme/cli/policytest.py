"""`axo policy test`: expectations about who reaches whom, tried with real packets in a throw-away sandbox."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from axoneme.cli import manifests
from axoneme.cli.failures import Failure, sentence
from axoneme.cli.place import Place
from axoneme.cli.tables import Table, show
from axoneme.model.manifests import Manifest, load
from axoneme.model.policytest import KIND, PolicyTest, parse_policy_test

if TYPE_CHECKING:
    from axoneme.cli.junit import Case, Suite
    from axoneme.cli.trials import Outcome

#: The exit codes of a test that found something else than expected, and of one that could not be made.
WRONG, UNUSABLE = 1, 2


@dataclass(frozen=True, slots=True)
class TestFile:
    """A test with what goes into its sandbox."""

    path: str
    test: PolicyTest
    objects: manifests.Manifests

    @property
    def name(self) -> str:
        return self.test.name or Path(self.path).stem


@click.command()
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE...", type=click.Path(exists=True, dir_okay=False)
)
@click.option("--junit", metavar="FILE", type=click.Path(dir_okay=False), help="Also write JUnit's XML.")
@click.option("--keep", is_flag=True, help="Leave the sandbox running, to look at.")
@click.option("--name", metavar="NAME", help="What the sandbox is called; default: policy-test-PID.")
@click.option(
    "--timeout", type=float, default=60.0, show_default=True, help="Seconds until the sandbox must be ready."
)
@click.pass_obj
def test(
    place: Place, files: Sequence[str], junit: str | None, keep: bool, name: str | None, timeout: float
) -> int:
    """Try with real packets whether policies do what is expected of them.

    Each FILE holds a PolicyTest: manifests, and sentences such as

      from default/xwing to default/deathstar port 80 -> denied by rule1

    They are tried in a sandbox of their own, which is removed again. Ends with 0 when all came as expected,
    with 1 when something did not, with 2 when a file or the sandbox cannot be used.
    """
    if keep and len(files) > 1:
        raise click.UsageError("--keep leaves one sandbox: give one FILE with it")
    place.sandbox = name or f"policy-test-{os.getpid()}"
    place.named = True
    suites, codes = [], []
    for file in files:
        suite, code = _one(place, file, keep, timeout)
        suites.append(suite)
        codes.append(code)
    if junit:
        from axoneme.cli.junit import document

        Path(junit).write_bytes(document("axo policy test", suites))
    return max(codes)


def _one(place: Place, path: str, keep: bool, timeout: float) -> tuple[Suite, int]:
    """A file's results, and the exit code that they would make alone."""
    from axoneme.cli.junit import Case, Suite

    began, start = datetime.now(UTC).replace(tzinfo=None), time.monotonic()
    try:
        file = read(path)
        outcomes = _in_sandbox(place, file, keep, timeout)
    except Exception as failure:
        said = failure.message if isinstance(failure, click.ClickException) else sentence(failure)
        if said is None:
            raise
        said = said if said.startswith(path) else f"{path}: {said}"
        click.echo(f"error: {said}", err=True)
        seconds = time.monotonic() - start
        broken = Case("sandbox", seconds, said.splitlines()[0], said, broken=True)
        return Suite(Path(path).stem, began, seconds, [broken]), UNUSABLE
    wrong = [each for each in outcomes if not each.as_expected]
    click.echo(
        f"{path}: all {len(outcomes)} as expected"
        if not wrong
        else f"{path}: {len(wrong)} of {len(outcomes)} not as expected"
    )
    suite = Suite(file.name, began, time.monotonic() - start, [_case(each) for each in outcomes])
    return suite, WRONG if wrong else 0


def _case(outcome: Outcome) -> Case:
    from axoneme.cli.junit import Case

    wrong = outcome.wrong
    problem = f"{wrong[0][1]}, came out {outcome.fates} by {outcome.deciders}" if wrong else ""
    detail = "\n".join(f"{complaint}: {made}" for made, complaint in wrong)
    return Case(str(outcome.expectation), outcome.seconds, problem, detail)


# ---- files ---------------------------------------------------------------------------------------------


def read(path: str, text: str | None = None) -> TestFile:
    """The test in a file, with all manifests that it names, checked; `Failure` or ManifestError."""
    from axoneme.sandbox.plan import MAX_NODES

    found = load(Path(path).read_text("utf-8") if text is None else text, path)
    tests = [each for each in found if each.kind == KIND]
    if len(tests) != 1:
        raise Failure(f"{path}: {len(tests) or 'no'} documents of kind {KIND}: a file holds exactly one")
    test = _parse(tests[0], MAX_NODES)
    folder = Path(path).parent
    named = [str(folder / each) for each in test.manifests]
    for each, name in zip(named, test.manifests, strict=True):
        if not Path(each).exists():
            raise Failure(f"{tests[0].origin}: manifests: there is no {name} in {folder}")
    texts = list(manifests.texts(named, recursive=False))
    beside = manifests.sound([each for each in found if each.kind != KIND])
    return TestFile(path, test, manifests.check(texts) + beside)


def _parse(manifest: Manifest, most_nodes: int) -> PolicyTest:
    from axoneme.model.paths import ManifestError

    try:
        return parse_policy_test(manifest.object, most_nodes)
    except ManifestError as error:
        raise error.of(origin=manifest.origin) from None


# ---- the sandbox ---------------------------------------------------------------------------------------


def _in_sandbox(place: Place, file: TestFile, keep: bool, timeout: float) -> list[Outcome]:
    from axoneme.cli.scene import run
    from axoneme.sandbox import lifecycle

    if place.sandbox in lifecycle.names():
        raise Failure(f"there is a sandbox {place.sandbox} already: give another --name")
    try:
        set_up(place.sandbox, file, timeout)
        outcomes = run(place, file.test.expect)
        show_outcomes(place, outcomes)
        return outcomes
    finally:
        if keep:
            click.echo(
                f"the sandbox {place.sandbox} runs on; axo sandbox down --name {place.sandbox}", err=True
            )
        else:
            lifecycle.down(place.sandbox)


def set_up(sandbox: str, file: TestFile, timeout: float = 60.0) -> None:
    """Makes the sandbox that the test wants, with its manifests in it; it must not be there yet."""
    from axoneme.cli.writing import populate
    from axoneme.sandbox import lifecycle
    from axoneme.sandbox.plan import Family, Plan, Routing

    test = file.test
    plan = Plan(name=sandbox, nodes=test.nodes, routing=Routing(test.routing), family=Family(test.family))
    lifecycle.up(
        plan,
        populate(file.objects.objects, plan.service_ranges()),
        progress=lambda step: click.echo(f"  {step}", err=True),
        deadline=timeout,
    )


def show_outcomes(place: Place, outcomes: Sequence[Outcome]) -> None:
    """A line for each expectation, then what is behind those that were not fulfilled."""
    table = Table(["FROM", "TO", "PORT", "FAMILY", "EXPECTED", "FOUND", "CONNECTIONS", "POLICIES", ""])
    for each in outcomes:
        wanted = each.expectation
        by = f" by {', '.join(wanted.by)}" if wanted.by else ""
        table.rows.append(
            [
                str(wanted.source),
                str(wanted.target),
                wanted.service,
                each.families,
                wanted.verdict + by,
                each.fates,
                each.ways,
                each.deciders,
                "yes" if each.as_expected else "no",
            ]
        )
    show(table)
    for each in outcomes:
        if each.wrong:
            click.echo(f"\n{each.expectation.path}: {each.expectation}")
        for made, complaint in each.wrong:
            click.echo(f"  {complaint}: {made}")
        if near := _nearest(place, each):
            click.echo(f"  {near}")


def _nearest(place: Place, outcome: Outcome) -> str:
    """For what should be allowed and is denied, the rule that came nearest, as the agents say it."""
    from axoneme.cli.policy import End, ask_both
    from axoneme.cli.trials import Fate

    denied = [made for made, _ in outcome.wrong if made.fate is Fate.DENIED]
    if not outcome.expectation.allowed or not denied:
        return ""
    connection, result = denied[0].connection, denied[0].result
    sender = End(connection.source.name, result.local_address, connection.source.endpoint)
    receiver = End(connection.target.name, connection.address, connection.target.endpoint)
    port, protocol = connection.question
    sides = ask_both(place, sender, receiver, port, protocol)
    return next((str(side.answer.nearest[0]["text"]) for side in sides if side.answer.nearest), "")
