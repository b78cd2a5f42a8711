"""What a client without the cluster's token can do, by trying; and where a secret shows itself."""

from __future__ import annotations

from tests.system.hosts import Host

_ASK = """
import json, sys, urllib.error, urllib.request
url, token, body = sys.argv[1], sys.argv[2], sys.argv[3]
headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
request = urllib.request.Request(url, headers=headers, data=body.encode() if body else None)
try:
    print(urllib.request.urlopen(request, timeout=20).status)
except urllib.error.HTTPError as error:
    print(error.code)
except OSError as error:
    print(type(error).__name__)
"""
# Ray's own ways wait for minutes until they give up, so the ports are asked directly.
_ASK_CLIENT_PORT = """
import sys, grpc
from ray.core.generated import ray_client_pb2 as messages, ray_client_pb2_grpc as services
metadata = [("client_id", "x" * 32)] + ([("authorization", f"Bearer {sys.argv[2]}")] if sys.argv[2] else [])
stub = services.RayletDriverStub(grpc.insecure_channel(sys.argv[1]))
try:
    stub.ClusterInfo(messages.ClusterInfoRequest(type=messages.ClusterInfoType.PING), metadata=metadata, timeout=60)
    print("OK")
except grpc.RpcError as error:
    print(error.code().name)
"""
_ASK_HEAD = """
import sys, ray
try:
    print("OK" if ray._raylet.GcsClient(address=sys.argv[1]).internal_kv_keys(b"", None) else "nothing")
except Exception as error:
    print(type(error).__name__)
"""
_WRONG = "0" * 64


def check_closed_doors(head: Host, address: str, client: Host) -> None:
    """The dashboard and the jobs API on the head itself, and both drivers' ports from `client`, which has the token."""
    token = client.run("cat", ".ray/auth_token").strip()

    def ask(path: str, token: str, body: str = "") -> str:
        return head.run("python", "-c", _ASK, f"http://127.0.0.1:8265{path}", token, body).strip()

    job = '{"entrypoint": "true"}'
    for path, body in (
        ("/api/jobs/", ""),
        ("/api/cluster_status", ""),
        ("/nodes?view=summary", ""),
        ("/api/jobs/", job),
    ):
        answers = [ask(path, "", body), ask(path, _WRONG, body), ask(path, token, body)]
        assert answers == ["401", "403", "200"], (path, answers)
    # Neither is there for other machines.
    seen = client.run("python", "-c", _ASK, f"http://{address}:8265/api/version", token, "").strip()
    assert seen == "URLError", seen
    clients = [client.run("python", "-c", _ASK_CLIENT_PORT, f"{address}:10001", key) for key in ("", _WRONG, token)]
    assert [said.split()[-1] for said in clients] == ["UNAUTHENTICATED", "UNAUTHENTICATED", "OK"], clients
    drivers = [
        client.run("python", "-c", _ASK_HEAD, f"{address}:6379", environment=environment)
        for environment in (
            {"RAY_AUTH_MODE": "disabled"},
            {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _WRONG},
            {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token},
        )
    ]
    assert [said.split()[-1] for said in drivers] == ["AuthenticationError", "AuthenticationError", "OK"], drivers


def secrets_shown(host: Host, *secrets: str) -> list[str]:
    """Files of Ray and of this project that hold a secret, command lines that do, and what Ray's own store holds."""
    found = []
    for secret in secrets:
        places = "$(ls -d /tmp/* ~/*.log ~/project/runs 2> /dev/null)"
        # Only from a file, so that the search itself does not show it.
        script = f"grep --recursive --binary-files=text --files-with-matches --file=/dev/stdin {places} 2> /dev/null"
        found += host.feed(secret, "bash", "-c", script).split()
        found += [
            " ".join(process.cmdline()).replace(secret, "SECRET")
            for process in host.processes()
            if secret in " ".join(process.cmdline())
        ]
    return found
