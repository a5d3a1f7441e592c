"""AdmissionReview requests as an API server posts them, and what it does with the answer."""

from __future__ import annotations

import base64
import copy
import json
import uuid
from typing import Any

Json = dict[str, Any]  # what the API sends; the tests look at what they know of it

POD: Json = {
    "kind": "Pod",
    "apiVersion": "v1",
    "metadata": {
        "generateName": "checkout-7d9f8c6b5-",
        "creationTimestamp": None,
        "labels": {"app.kubernetes.io/name": "checkout", "pod-template-hash": "7d9f8c6b5"},
        "ownerReferences": [
            {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "name": "checkout-7d9f8c6b5",
                "uid": "5f3c2f0e-6c55-4d55-9a0e-0d1c7e6b1f52",
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    },
    "spec": {
        "volumes": [
            {
                "name": "kube-api-access-x7k2p",
                "projected": {
                    "sources": [
                        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                    ],
                    "defaultMode": 420,
                },
            }
        ],
        "containers": [
            {
                "name": "checkout",
                "image": "registry.example.com/checkout:2.3.1",
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                "env": [{"name": "GOGC", "value": "80"}],
                "resources": {"limits": {"memory": "512Mi"}, "requests": {"cpu": "100m", "memory": "256Mi"}},
                "volumeMounts": [
                    {
                        "name": "kube-api-access-x7k2p",
                        "readOnly": True,
                        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
                    }
                ],
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
                "imagePullPolicy": "IfNotPresent",
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                    "runAsUser": 10001,
                    "runAsGroup": 10001,
                },
            }
        ],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "serviceAccountName": "checkout",
        "serviceAccount": "checkout",
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "schedulerName": "default-scheduler",
        "tolerations": [
            {
                "key": "node.kubernetes.io/not-ready",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": 300,
            }
        ],
        "priority": 0,
        "enableServiceLinks": True,
        "preemptionPolicy": "PreemptLowerPriority",
    },
    "status": {},
}


def pod(**metadata: object) -> Json:
    """The pod of a Deployment, as the ReplicaSet controller creates it, with these in its metadata."""
    made = copy.deepcopy(POD)
    made["metadata"] |= metadata
    return made


def review_of(made: object, **request: object) -> Json:
    """A review of a pod's creation, with these in the request."""
    return {
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": str(uuid.uuid4()),
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
            "requestResource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "shop",
            "operation": "CREATE",
            "userInfo": {
                "username": "system:serviceaccount:kube-system:replicaset-controller",
                "uid": "c2a1bb0c-8ad5-4f5e-9fd5-5a4f4b1b7a6e",
                "groups": ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"],
            },
            "object": made,
            "oldObject": None,
            "dryRun": False,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
            **request,
        },
    }


def response_of(review: Json, answer: bytes) -> Json:
    """The response in an answer, held to what the API server demands of it."""
    document: Json = json.loads(answer)
    assert (document["apiVersion"], document["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    response: Json = document["response"]
    assert response["uid"] == review["request"]["uid"]
    assert response["allowed"] is True
    assert ("patch" in response) == ("patchType" in response)
    assert response.get("patchType", "JSONPatch") == "JSONPatch"
    warnings = response.get("warnings", [])
    assert len(warnings) <= 3
    assert all(text.isprintable() and len(text) < 120 for text in warnings)
    assert set(response) <= {"uid", "allowed", "patch", "patchType", "warnings", "auditAnnotations"}
    return response


def patched(review: Json, response: Json) -> Json:
    """The object as the API server takes it: RFC 6902 to the letter, as its own library does."""
    document: Json = copy.deepcopy(review["request"]["object"])
    for operation in json.loads(base64.b64decode(response.get("patch", "W10="), validate=True)):
        *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        node: Any = document
        for name in parents:
            node = node[int(name)] if isinstance(node, list) else node[name]
        if isinstance(node, list):
            assert operation["op"] == "add"
            index = len(node) if last == "-" else int(last)
            assert 0 <= index <= len(node)
            node.insert(index, operation["value"])
        else:
            assert operation["op"] in {"add", "replace", "remove"}
            assert operation["op"] == "add" or last in node
            if operation["op"] == "remove":
                del node[last]
            else:
                node[last] = operation["value"]
    return document
