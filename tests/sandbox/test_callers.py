"""Programs that call services in a sandbox, while backends come and go: whom they see, and what they are
told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from runtime import Document, Live, live

from axoneme.rpc import Client

SERVICE = "10.96.7.7"
WORLD = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: echo}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: echo}}}}
  template:
    metadata: {{labels: {{app: echo}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{{name: c, image: echo, ports: [{{containerPort: 7000, protocol: UDP}}]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: echo}}
spec:
  clusterIP: {SERVICE}
  selector: {{app: echo}}
  ports: [{{port: 70, targetPort: 7000, protocol: UDP}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: caller}}
spec:
  containers:
  - name: c
    image: none
    command: [python3, -u, -c]
    args:
    - |
      import json, socket, time
      def told(error):
          print("told", error.errno)
          time.sleep(0.1)
      while True:
          with socket.socket(type=socket.SOCK_DGRAM) as caller:
              caller.settimeout(5)
              try:
                  caller.connect(("{SERVICE}", 70))
              except OSError as error:
                  told(error)
                  continue
              print("peer", *caller.getpeername())
              try:
                  while True:
                      caller.send(b"hello")
                      answer, sender = caller.recvfrom(2000)
                      print("heard", *sender, json.loads(answer)["pod"])
                      time.sleep(0.1)
              except OSError as error:
                  told(error)
"""
ABORTED, REFUSED = 103, 111


@pytest.fixture(scope="module")
def runtime() -> Iterator[Live]:
    with live("callers", WORLD) as made:
        yield made


def said(runtime: Live) -> list[list[str]]:
    """What the caller has printed: a list of words a line."""
    wish = {"namespace": "default", "pod": "caller"}
    text = "".join(Client(runtime.layout.supervisor_socket).stream("pod.logs", wish))
    return [line.split() for line in text.splitlines()]


def heard_after(runtime: Live, lines: int) -> str:
    """The pod that has answered last, of what was printed after so many lines."""

    def last() -> str | None:
        found = [words for words in said(runtime)[lines:] if words[0] == "heard"]
        return found[-1][3] if found else None

    return runtime.wait(last, "a backend answers")


def test_the_caller_sees_the_service_and_the_flow_names_it(runtime: Live) -> None:
    backend = heard_after(runtime, 0)
    names = {tuple(words[1:3]) for words in said(runtime) if words[0] in ("peer", "heard")}
    assert names == {(SERVICE, "70")}

    def flow() -> Document | None:
        found = runtime.flows(filters=[{"from_pod": ["default/caller"]}])
        return next((each for each in found if each.get("destination_service")), None)

    found = runtime.wait(flow, "a flow with the service's name")
    assert found["destination_service"]["name"] == "echo"
    assert found["destination"]["pod_name"].startswith("echo-") and backend.startswith("echo-")


def test_the_caller_is_told_when_its_backend_goes_and_calls_another(runtime: Live) -> None:
    backend = heard_after(runtime, 0)
    before = len(said(runtime))
    runtime.delete("Pod", backend)
    runtime.wait(
        lambda: ["told", str(ABORTED)] in said(runtime)[before:] or None, "the caller's socket is closed"
    )
    told = next(at for at, words in enumerate(said(runtime)) if at >= before and words[0] == "told")
    assert heard_after(runtime, told) != backend


def test_the_caller_is_refused_while_nobody_serves(runtime: Live) -> None:
    runtime.change("Deployment", "echo", lambda deployment: deployment["spec"].update(replicas=0))
    runtime.wait(lambda: said(runtime)[-3:] == [["told", str(REFUSED)]] * 3 or None, "calls are refused")
    runtime.change("Deployment", "echo", lambda deployment: deployment["spec"].update(replicas=1))
    assert heard_after(runtime, len(said(runtime)))
