"""Apache Kafka and real clients with the proxy between them: librdkafka (kcat), Java's, aiokafka.

Java's clients of these releases name topics by their ids and fetch in sessions; the others do neither.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest
from kafka_lab import BROKER, Proxy, broker, java, kcat
from steered import Rig, rig_in

from axoneme.model.kafkaapis import ROLES
from axoneme.model.l7 import KafkaRule
from axoneme.net import kernel, netns

aiokafka = pytest.importorskip("aiokafka")
admin = pytest.importorskip("aiokafka.admin")
errors = pytest.importorskip("aiokafka.errors")
T = TypeVar("T")
pytestmark = pytest.mark.slow

SERVER = f"{BROKER}:9092"
#: Of each release: the console producer's class.
RELEASES = {"3.9.1": "kafka.tools.ConsoleProducer", "4.4.0": "org.apache.kafka.tools.ConsoleProducer"}
CONSUMER = "org.apache.kafka.tools.consumer.ConsoleConsumer"
SHARE_CONSUMER = "org.apache.kafka.tools.consumer.ConsoleShareConsumer"
REFUSED = "TopicAuthorizationException: Not authorized to access topics: [{}]"


def may(role: str, topic: str) -> KafkaRule:
    return KafkaRule(api_keys=ROLES[role], topic=topic)


class Lab:
    """A broker of one release, the proxy, and their clients."""

    def __init__(self, rig: Rig, proxy: Proxy, release: str) -> None:
        self.rig, self.proxy, self.release = rig, proxy, release

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Runs a coroutine with its sockets where the client is."""
        found: list[T] = []
        failed: list[BaseException] = []

        def inside() -> None:
            try:
                with netns.opened(self.rig.client) as there, kernel.inside(there):
                    found.append(asyncio.run(asyncio.wait_for(work(), 60)))
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
        return found[0]

    def produces(self, topic: str, text: str, *options: str) -> str:
        """By Java; its complaints."""
        arguments = ("--topic", topic, *options)
        return java(self.rig, self.release, RELEASES[self.release], *arguments, text=f"{text}\n")[1]

    def consumes(
        self, topic: str, *options: str, main: str = CONSUMER, patience: int = 8000
    ) -> tuple[list[str], str]:
        """By Java, until nothing has come for ``patience`` ms; what it has got, and its complaints."""
        arguments = ("--timeout-ms", str(patience), "--topic", topic, *options)
        out, err = java(self.rig, self.release, main, *arguments)
        return out.split(), err


@pytest.fixture(scope="module", params=RELEASES)
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with (
        rig_in(tmp_path_factory.mktemp("rig")) as rig,
        broker(rig, tmp_path_factory.mktemp("broker"), request.param),
    ):
        proxy = Proxy(rig, tmp_path_factory.mktemp("proxy"))
        try:
            made = Lab(rig, proxy, request.param)
            made.run(create_topics)
            yield made
        finally:
            proxy.close()


async def create_topics() -> None:
    client = admin.AIOKafkaAdminClient(bootstrap_servers=SERVER)
    await client.start()
    try:
        await client.create_topics([admin.NewTopic(each, 1, 1) for each in ("alpha", "beta", "gamma")])
    finally:
        await client.close()


def test_librdkafka_produces_where_it_may_and_consumes_where_it_may(lab: Lab) -> None:
    lab.proxy.rules(may("produce", "alpha"), may("consume", "beta"))
    assert kcat(lab.rig, "-P", "-t", "alpha", text="one\ntwo\n") == (0, "", "")
    status, _, complaint = kcat(lab.rig, "-P", "-t", "beta", "-X", "message.timeout.ms=4000", text="x\n")
    assert status and "Topic authorization failed" in complaint
    status, _, complaint = kcat(lab.rig, "-C", "-t", "alpha", "-e", "-q")
    assert status and "Topic authorization failed" in complaint
    assert kcat(lab.rig, "-C", "-t", "beta", "-e", "-q")[0] == 0
    lab.proxy.rules(may("produce", "alpha"))
    status, _, complaint = kcat(lab.rig, "-G", "group", "alpha")
    assert status and "Group authorization failed" in complaint
    lab.proxy.rules(may("consume", "alpha"))
    status, got, _ = kcat(lab.rig, "-C", "-t", "alpha", "-e", "-q")
    assert status == 0 and {"one", "two"} <= set(got.split())
    earliest = ("-X", "auto.offset.reset=earliest", "-c", "2", "-q")
    status, got, _ = kcat(lab.rig, "-G", "group", *earliest, "alpha")
    assert status == 0 and len(got.split()) == 2


def test_java_produces_where_it_may_and_consumes_where_it_may(lab: Lab) -> None:
    lab.proxy.rules(may("produce", "alpha"), may("consume", "alpha"), may("produce", "beta"))
    assert REFUSED.format("gamma") in lab.produces("gamma", "x")
    assert "Exception" not in lab.produces("alpha", "java-alpha")
    assert "Exception" not in lab.produces("beta", "java-beta")
    got, complaint = lab.consumes("beta", "--from-beginning")
    assert not got and REFUSED.format("beta") in complaint
    got, _ = lab.consumes("alpha", "--from-beginning")
    assert "java-alpha" in got


def test_java_consumes_by_the_newer_protocols(lab: Lab) -> None:
    if lab.release.startswith("3."):
        pytest.skip("brokers offer them by default since 4.0")
    lab.proxy.rules(KafkaRule())
    lab.produces("alpha", "new-protocol")
    lab.proxy.rules(may("consume", "alpha"))
    newer = ("--command-property", "group.protocol=consumer", "--from-beginning")
    assert "new-protocol" in lab.consumes("alpha", *newer)[0]
    got, complaint = lab.consumes("beta", *newer)
    assert not got and "TopicAuthorizationException" in complaint


def test_java_shares_a_group_where_it_may(lab: Lab) -> None:
    if lab.release.startswith("3."):
        pytest.skip("brokers have share groups since 4.2")
    lab.proxy.rules(may("consume", "alpha"), may("produce", "alpha"))
    with ThreadPoolExecutor() as threads:
        # It begins with what comes after it.
        sharing = threads.submit(
            lab.consumes, "alpha", "--max-messages", "1", main=SHARE_CONSUMER, patience=60_000
        )
        while not sharing.done():
            kcat(lab.rig, "-P", "-t", "alpha", text="shared\n")
    got, complaint = sharing.result()
    assert got == ["shared"], complaint
    got, complaint = lab.consumes("beta", main=SHARE_CONSUMER)
    assert not got and "TopicAuthorizationException" in complaint


def test_a_connection_goes_on_through_refusals_and_other_rules(lab: Lab) -> None:
    lab.proxy.rules(may("produce", "alpha"), may("produce", "beta"))

    async def talk() -> int:
        producer = aiokafka.AIOKafkaProducer(bootstrap_servers=SERVER, client_id="steady")
        await producer.start()
        try:
            await producer.send_and_wait("alpha", b"first")
            await producer.send_and_wait("beta", b"second")
            lab.proxy.rules(may("produce", "alpha"))
            with pytest.raises(errors.TopicAuthorizationFailedError):
                await producer.send_and_wait("beta", b"refused")
            await producer.send_and_wait("alpha", b"third")
            lab.proxy.rules(may("produce", "beta"))
            with pytest.raises(errors.TopicAuthorizationFailedError):
                await producer.send_and_wait("alpha", b"refused")
            return int((await producer.send_and_wait("beta", b"fourth")).offset)
        finally:
            await producer.stop()

    lab.proxy.events()
    lab.run(talk)
    told = [each for each in lab.proxy.events() if each.kafka and each.kafka.client_id == "steady"]
    produced = [each for each in told if each.kafka and each.kafka.api_key == "produce"]
    assert len({each.source_port for each in produced}) == 1
    verdicts = [each.verdict for each in produced if each.type == "REQUEST"]
    assert verdicts.count("FORWARDED") == 4 and "DROPPED" in verdicts


def test_transactions_and_idempotence_are_part_of_producing(lab: Lab) -> None:
    lab.proxy.rules(may("produce", "alpha"))

    async def talk() -> None:
        producer = aiokafka.AIOKafkaProducer(
            bootstrap_servers=SERVER, transactional_id="t", enable_idempotence=True
        )
        await producer.start()
        try:
            async with producer.transaction():
                await producer.send_and_wait("alpha", b"committed")
            with pytest.raises(errors.TopicAuthorizationFailedError):
                async with producer.transaction():
                    await producer.send_and_wait("beta", b"refused")
        finally:
            await producer.stop()

    lab.run(talk)
    lab.proxy.rules(may("consume", "alpha"))
    committed = ("--from-beginning", "--consumer-property", "isolation.level=read_committed")
    assert "committed" in lab.consumes("alpha", *committed)[0]


def test_who_logs_in_is_judged_as_others_are(lab: Lab) -> None:
    lab.proxy.rules(may("produce", "alpha"))

    async def talk(password: str) -> None:
        login = {"security_protocol": "SASL_PLAINTEXT", "sasl_plain_username": "me"}
        server = f"{BROKER}:9094"
        producer = aiokafka.AIOKafkaProducer(bootstrap_servers=server, sasl_plain_password=password, **login)
        try:
            await producer.start()
            await producer.send_and_wait("alpha", b"known")
            with pytest.raises(errors.TopicAuthorizationFailedError):
                await producer.send_and_wait("beta", b"refused")
        finally:
            await producer.stop()

    lab.run(lambda: talk("secret"))
    with pytest.raises(
        errors.KafkaConnectionError
    ):  # as the client says it of all that keeps it from starting
        lab.run(lambda: talk("wrong"))


def test_a_live_consumer_loses_a_topic_when_the_rules_do(lab: Lab) -> None:
    lab.proxy.rules(may("consume", "alpha"), may("produce", "alpha"))

    async def talk() -> None:
        producer = aiokafka.AIOKafkaProducer(bootstrap_servers=SERVER)
        consumer = aiokafka.AIOKafkaConsumer("alpha", bootstrap_servers=SERVER, group_id="live")
        await producer.start()
        await consumer.start()
        try:
            await consumer.seek_to_end()
            await producer.send_and_wait("alpha", b"seen")
            assert (await consumer.getone()).value == b"seen"
            lab.proxy.rules(may("produce", "alpha"))
            await producer.send_and_wait("alpha", b"hidden")
            with pytest.raises(errors.TopicAuthorizationFailedError):
                await consumer.getone()
        finally:
            await producer.stop()
            lab.proxy.rules(KafkaRule())
            await consumer.stop()

    lab.run(talk)
