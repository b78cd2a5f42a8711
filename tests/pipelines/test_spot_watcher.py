"""The notice of a spot machine is found as AWS gives it, and drains the node of a real Ray."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import ray

from mlim_ray.pipelines.spot_watcher import MetadataClient, Notice, watch
from tests.metadata_service import MetadataService
from tests.pipelines.own_ray import OwnRay

NOTICE = "spot_instance-action"
TEXT = '{"action": "terminate", "time": "2026-09-18T08:22:00Z"}'
GIVEN = Notice("terminate", datetime(2026, 9, 18, 8, 22, tzinfo=UTC))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[MetadataService]:
    """The metadata service of a machine that has no notice yet."""
    with MetadataService(tmp_path) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def test_a_machine_without_a_notice_has_none(service: MetadataService) -> None:
    client = MetadataClient(service.url)
    assert client.notice() is None and client.notice() is None
    assert [status for *_, status in service.asked] == [200, 404, 404], "one token serves many questions"


def test_the_notice_is_found(service: MetadataService) -> None:
    (service.folder / NOTICE).write_text(TEXT)
    assert MetadataClient(service.url).notice() == GIVEN


def test_a_token_that_expired_is_renewed(service: MetadataService) -> None:
    client = MetadataClient(service.url)
    client.notice()
    service.forget_tokens()
    (service.folder / NOTICE).write_text(TEXT)
    assert client.notice() == GIVEN
    assert [status for *_, status in service.asked] == [200, 404, 401, 200, 200]


def test_no_proxy_is_asked(service: MetadataService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert MetadataClient(service.url).notice() is None


@pytest.mark.parametrize("text", ["", "terminate", "[]", '{"action": "stop"}', '{"action": "stop", "time": "soon"}'])
def test_what_is_no_notice_is_refused(service: MetadataService, text: str) -> None:
    (service.folder / NOTICE).write_text(text)
    with pytest.raises(ValueError, match="expected JSON with action and time"):
        MetadataClient(service.url).notice()


def test_a_notice_leaves_a_second_at_least() -> None:
    assert GIVEN.remaining_s(GIVEN.time - timedelta(seconds=120)) == 120
    assert GIVEN.remaining_s(GIVEN.time + timedelta(seconds=5)) == 1


def test_watching_outlives_a_service_that_is_away_and_a_drain_that_fails(service: MetadataService) -> None:
    tried: list[Notice] = []
    client = MetadataClient(service.url)
    questions = iter(["away", "none", "given", "given"])

    class Unsteady:
        def notice(self) -> Notice | None:
            question = next(questions)
            if question == "away":
                raise ConnectionRefusedError("nobody there")
            if question == "given":
                (service.folder / NOTICE).write_text(TEXT)
            return client.notice()

    def drain(notice: Notice) -> None:
        tried.append(notice)
        if len(tried) == 1:
            raise ray.exceptions.RaySystemError("the head is away")

    assert watch(Unsteady(), drain, poll_s=0.0) == GIVEN
    assert tried == [GIVEN, GIVEN]


def test_watching_ends_when_told() -> None:
    stop = threading.Event()
    stop.set()
    assert watch(MetadataClient("http://127.0.0.1:9"), lambda notice: None, stop=stop) is None


@pytest.mark.cluster
def test_the_command_drains_the_node_of_a_ray(service: MetadataService) -> None:
    with OwnRay(dashboard=False) as own:
        leaves = datetime.now(UTC) + timedelta(seconds=120)
        (service.folder / NOTICE).write_text(
            json.dumps({"action": "terminate", "time": f"{leaves:%Y-%m-%dT%H:%M:%SZ}"})
        )
        own.add_node()
        nodes = wait_for_nodes(own, 2)
        other = next(node for node in nodes if node["cpus"] == 1)
        command = [sys.executable, "-m", "mlim_ray.command_line.main", "watch-spot", "--metadata-url", service.url]
        command += ["--address", own.address, "--node-id", other["id"], "--poll-s", "0.2"]
        said = subprocess.run(command, env=own.environment, check=True, capture_output=True, text=True).stdout
        assert "spot notice: terminate at" in said and "the node is drained" in said
        # Nothing runs there, so that it goes at once.
        line = "print(json.dumps({n['NodeID']: n['DeathReasonMessage'] for n in ray.nodes() if not n['Alive']}))"
        gone = asked(own, line)
        for _ in range(30):
            if gone:
                break
            gone = asked(own, line)
        assert list(gone) == [other["id"]] and "spot notice: terminate" in gone[other["id"]]


def asked(own: OwnRay, line: str) -> object:
    """What a driver of this Ray prints as JSON."""
    script = "import json, ray, sys; from ray._private import state; "
    script += f"ray.init(address={own.address!r}, log_to_driver=False, logging_level='ERROR'); {line}"
    done = subprocess.run(
        [sys.executable, "-c", script], env=own.environment, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def wait_for_nodes(own: OwnRay, number: int) -> list[dict[str, object]]:
    """All nodes, once there are so many."""
    line = "print(json.dumps([{'id': n['NodeID'], 'cpus': n['Resources'].get('CPU')} for n in ray.nodes()]))"
    for _ in range(30):
        nodes = asked(own, line)
        assert isinstance(nodes, list)
        if len(nodes) == number:
            return nodes
    raise TimeoutError(f"{len(nodes)} of {number} nodes came")
