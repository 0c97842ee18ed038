"""The Kafka proxy's process in a rig, Apache Kafka as it is published, and its own clients."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from steered import ADDRESSES, PORT, Rig

from axoneme.model.l7 import L7, KafkaRule, L7Kind
from axoneme.model.l7event import L7Event, L7Report
from axoneme.proxy.following import read_report, write_plan
from axoneme.proxy.plan import Listener, Plan, directory

JARS = Path(__file__).resolve().parents[2] / "build" / "kafka"
BROKER = ADDRESSES[socket.AF_INET][1]
_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>axoneme</groupId><artifactId>broker</artifactId><version>1</version><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{version}</version>
{mute}</dependency>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>{version}</version>
{mute}</dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
</dependencies></project>"""
#: Of two that write what is logged, Java takes the one whose file comes first in the folder.
_MUTE = """<exclusions><exclusion><groupId>org.slf4j</groupId><artifactId>slf4j-reload4j</artifactId>
</exclusion></exclusions>"""
SETTINGS = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:9093
listeners=PLAINTEXT://:9092,SASL://:9094,CONTROLLER://127.0.0.1:9093
advertised.listeners=PLAINTEXT://{address}:9092,SASL://{address}:9094
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.sasl.plain.sasl.jaas.config=\\
org.apache.kafka.common.security.plain.PlainLoginModule required user_me="secret";
controller.listener.names=CONTROLLER
log.dirs={folder}/logs
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
group.coordinator.rebalance.protocols=classic,consumer
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.min.isr=1
auto.create.topics.enable=false
"""


def until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


class Proxy:
    """The process, in the rig's middle, and what it tells the flow server."""

    def __init__(self, rig: Rig, folder: Path, python: tuple[str, ...] = (sys.executable,)) -> None:
        folder.chmod(0o755)  # as an agent's directory
        self.config = folder / "agent.yaml"
        self.config.write_text(json.dumps({"node": "one", "directory": str(folder)}))
        self._folder = directory(folder / "state", "kafka")
        self._folder.mkdir(parents=True)
        self._revision = 0
        self._hearing = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._hearing.bind(str(folder / "l7.sock"))
        (folder / "l7.sock").chmod(0o666)
        self._hearing.listen()
        self._hearing.settimeout(20)
        self._said: socket.socket | None = None
        self._events = str(folder / "l7.sock")
        self._write((KafkaRule(),), audit=False)
        command = ["nsenter", f"--net={rig.proxy}", *python, "-m", "axoneme.proxy", "kafka", str(self.config)]
        self.process = subprocess.Popen(command)
        self._until_it_holds()

    def rules(self, *rules: KafkaRule, audit: bool = False) -> None:
        self._write(rules, audit)
        self._until_it_holds()

    def events(self) -> list[L7Event]:
        """What it has told since the last call; waits for something."""
        if self._said is None:
            self._said, _ = self._hearing.accept()
        self._said.settimeout(20)
        found = list(msgspec.json.decode(self._said.recv(1 << 20), type=L7Report).events)
        self._said.setblocking(False)
        try:
            while True:
                found += msgspec.json.decode(self._said.recv(1 << 20), type=L7Report).events
        except BlockingIOError:
            return found

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._hearing.close()
        if self._said is not None:
            self._said.close()

    def _write(self, rules: tuple[KafkaRule, ...], audit: bool) -> None:
        self._revision += 1
        listener = Listener(PORT, "egress", L7(L7Kind.KAFKA, kafka=rules), audit)
        write_plan(self._folder, Plan("one", self._revision, (4, 6), self._events, (listener,)))

    def _until_it_holds(self) -> None:
        def holds() -> bool:
            assert self.process.poll() is None, "the proxy has ended"
            report = read_report(self._folder)
            return bool(report and report.revision == self._revision and report.ready == (PORT,))

        until(holds, "the plan is not in force")


def fetched(version: str) -> str:
    """The class path of a release of Apache Kafka, which comes by Maven. Skips where that cannot be."""
    for tool in ("java", "mvn"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}: apt-get install openjdk-17-jre-headless maven")
    folder = JARS / version
    done = folder / "complete"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pom.xml").write_text(_POM.format(version=version, mute=_MUTE))
        maven = ["mvn", "-q", "-B", "-f", str(folder / "pom.xml"), "dependency:copy-dependencies"]
        command = [*maven, f"-DoutputDirectory={folder}"]
        got = subprocess.run(command, check=False, capture_output=True, text=True)
        if got.returncode:
            pytest.skip(f"Apache Kafka is not to be had: {got.stdout[-500:]}")
        done.touch()
    return f"{folder}/*"


def format_log(classes: str, settings: Path) -> None:
    """Makes a broker's folder ready for its first start."""
    tool = ["java", "-cp", classes, "kafka.tools.StorageTool", "format"]
    subprocess.run([*tool, "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", settings], check=True, capture_output=True)


@contextmanager
def broker(rig: Rig, folder: Path, version: str) -> Iterator[None]:
    """Apache Kafka (KRaft) at `BROKER`, port 9092."""
    classes = fetched(version)
    settings = folder / "server.properties"
    settings.write_text(SETTINGS.format(address=BROKER, folder=folder))
    format_log(classes, settings)
    with (folder / "broker.log").open("w") as log:
        started = subprocess.Popen(
            ["nsenter", f"--net={rig.server}", "java", "-Xmx384m", "-cp", classes, "kafka.Kafka", settings],
            stdout=log,
            stderr=log,
        )
        try:

            def answers() -> bool:
                assert started.poll() is None, (folder / "broker.log").read_text()[-2000:]
                with rig.socket(rig.server, socket.AF_INET, socket.SOCK_STREAM) as made:
                    return made.connect_ex(("127.0.0.1", 9092)) == 0

            until(answers, "the broker does not start", 120)
            yield
        finally:
            started.terminate()
            started.wait()


def java(
    rig: Rig, version: str, main: str, *arguments: str, text: str = "", server: bool = True
) -> tuple[str, str]:
    """Runs a tool of Apache Kafka as the client; what it prints, and what it complains of."""
    options = ["-Xmx256m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
    where = ["--bootstrap-server", f"{BROKER}:9092"] if server else []
    done = subprocess.run(
        ["nsenter", f"--net={rig.client}", "java", *options, "-cp", fetched(version), main, *where,
         *arguments],
        input=text, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    return done.stdout, done.stderr


def kcat(rig: Rig, *arguments: str, text: str = "") -> tuple[int, str, str]:
    """Runs kcat (librdkafka) as the client."""
    if shutil.which("kcat") is None:
        pytest.skip("needs kcat: apt-get install kafkacat")
    done = subprocess.run(
        ["nsenter", f"--net={rig.client}", "kcat", "-b", f"{BROKER}:9092", *arguments],
        input=text, capture_output=True, text=True, timeout=180, check=False,
        env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr
