"""What KubeRay's two kinds take, as far as our manifests use it, and no key more.

Written after the Go types of KubeRay 1.5 (`RayClusterSpec`, `HeadGroupSpec`, `WorkerGroupSpec`, `AutoscalerOptions`,
`RayJobSpec`) and the core types of a pod: names, kinds of values, what is required, the enumerations.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string", "minLength": 1}
COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
NAME: Schema = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"}
TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
QUANTITIES: Schema = {
    "type": "object",
    "additionalProperties": {"type": "string", "pattern": r"^[0-9.]+(m|[KMGT]i?)?$"},
}


def keys(required: dict[str, Schema], **optional: Schema) -> Schema:
    """An object of these keys and no others."""
    properties = required | optional
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


RESOURCES = keys({}, requests=QUANTITIES, limits=QUANTITIES)
SECURITY = keys({}, allowPrivilegeEscalation={"type": "boolean"}, runAsNonRoot={"type": "boolean"}, runAsUser=COUNT)
VARIABLES: Schema = {"type": "array", "items": keys({"name": TEXT, "value": TEXT})}
CONTAINER = keys({"name": NAME, "image": TEXT}, env=VARIABLES, resources=RESOURCES, securityContext=SECURITY)
TOLERATION = keys(
    {},
    key=TEXT,
    operator={"enum": ["Exists", "Equal"]},
    effect={"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
)
POD = keys(
    {"containers": {"type": "array", "items": CONTAINER, "minItems": 1}},
    serviceAccountName=NAME,
    tolerations={"type": "array", "items": TOLERATION},
)
TEMPLATE = keys({"spec": POD})
HEAD_GROUP = keys(
    {"rayStartParams": TEXTS, "template": TEMPLATE},
    serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
)
WORKER_GROUP = keys(
    {"groupName": NAME, "minReplicas": COUNT, "maxReplicas": COUNT, "rayStartParams": TEXTS, "template": TEMPLATE},
    replicas=COUNT,
)
CLUSTER_SPEC = keys(
    {"headGroupSpec": HEAD_GROUP},
    workerGroupSpecs={"type": "array", "items": WORKER_GROUP},
    rayVersion=TEXT,
    enableInTreeAutoscaling={"type": "boolean"},
    autoscalerOptions=keys(
        {}, upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]}, idleTimeoutSeconds=COUNT
    ),
    authOptions=keys({}, mode={"enum": ["disabled", "token"]}),
)
JOB_SPEC = keys(
    {},
    entrypoint=TEXT,
    rayClusterSpec=CLUSTER_SPEC,
    shutdownAfterJobFinishes={"type": "boolean"},
    ttlSecondsAfterFinished=COUNT,
    backoffLimit=COUNT,
)


def manifest(kind: str, spec: Schema) -> Schema:
    return keys(
        {"apiVersion": {"const": "ray.io/v1"}, "kind": {"const": kind}, "metadata": keys({"name": NAME}), "spec": spec}
    )


RAY_CLUSTER, RAY_JOB = manifest("RayCluster", CLUSTER_SPEC), manifest("RayJob", JOB_SPEC)
