"""Calls of AWS's API, a JSON line each, and their answers: `python -m tests.system.ask_ec2 ENDPOINT REGION`."""

from __future__ import annotations

import json
import sys

import boto3


def main(endpoint: str, region: str) -> None:
    for line in sys.stdin:
        service, call, arguments = json.loads(line)
        client = boto3.client(service, region_name=region, endpoint_url=endpoint)
        answer = getattr(client, call)(**arguments)
        print(json.dumps(answer, default=str), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
