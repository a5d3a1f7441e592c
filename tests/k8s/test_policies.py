from __future__ import annotations

import json
from typing import Any

from tests.k8s.manifests import K8S, SIDECAR, containers_of, deployments, load, of_kind, pod_of

ENVIRONMENT = {
    variable["name"]: variable.get("value")
    for variable in containers_of(pod_of(deployments()["deployment"]))[SIDECAR]["env"]
}
BUCKET_ARN = f"arn:aws:s3:::{ENVIRONMENT['BUCKET']}"
DUMPS_ARN = f"{BUCKET_ARN}/{ENVIRONMENT['PREFIX']}/*"


def read(name: str) -> dict[str, Any]:
    """A policy as data."""
    policy: dict[str, Any] = json.loads((K8S / name).read_text())
    return policy


def allowed(name: str) -> dict[tuple[str, str], dict[str, Any]]:
    """What a policy allows: (action, resource) to the condition."""
    policy = read(name)
    assert policy["Version"] == "2012-10-17"
    found = {}
    for statement in policy["Statement"]:
        assert statement["Effect"] == "Allow"
        found[statement["Action"], statement["Resource"]] = statement.get("Condition", {})
    return found


def test_the_sidecar_may_write_dumps_and_nothing_else() -> None:
    """The writer's policy allows PutObject below the manifests' bucket and prefix; no reading, listing, deleting."""
    assert allowed("s3-policy.json") == {("s3:PutObject", DUMPS_ARN): {}}


def test_engineers_may_list_and_read_dumps_and_nothing_else() -> None:
    """The reader's policy allows GetObject below the prefix, and ListBucket with that prefix only."""
    assert allowed("s3-reader-policy.json") == {
        ("s3:ListBucket", BUCKET_ARN): {"StringLike": {"s3:prefix": f"{ENVIRONMENT['PREFIX']}/*"}},
        ("s3:GetObject", DUMPS_ARN): {},
    }


def test_the_role_trusts_the_service_account_of_the_manifests_alone() -> None:
    """Of the cluster's identities only the Deployment's service account may take the role, and only for STS."""
    (statement,) = read("iam-trust-policy.json")["Statement"]
    (account,) = load(K8S / "irsa-serviceaccount.yaml")
    assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
    provider = statement["Principal"]["Federated"].partition(":oidc-provider/")[2]
    assert statement["Condition"] == {
        "StringEquals": {
            f"{provider}:aud": "sts.amazonaws.com",
            f"{provider}:sub": f"system:serviceaccount:default:{account['metadata']['name']}",
        }
    }


def test_pod_identity_is_held_to_the_same_service_account() -> None:
    """The trust policy for EKS Pod Identity names the cluster, the namespace and the service account."""
    (statement,) = read("iam-trust-policy-pod-identity.json")["Statement"]
    (account,) = load(K8S / "irsa-serviceaccount.yaml")
    assert statement["Principal"] == {"Service": "pods.eks.amazonaws.com"}
    assert set(statement["Action"]) == {"sts:AssumeRole", "sts:TagSession"}
    wanted = statement["Condition"]["StringEquals"]
    assert wanted["aws:RequestTag/kubernetes-service-account"] == account["metadata"]["name"]
    assert wanted["aws:RequestTag/kubernetes-namespace"] == "default"
    assert wanted["aws:RequestTag/eks-cluster-arn"].startswith("arn:aws:eks:")


def test_the_pods_use_the_account_with_the_role() -> None:
    """The Deployments run as the service account that carries the role's ARN, without a token for the API server."""
    (account,) = load(K8S / "irsa-serviceaccount.yaml")
    assert account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"].startswith("arn:aws:iam::")
    assert account["automountServiceAccountToken"] is False
    for name in ("deployment.yaml", "native-sidecar.yaml"):
        pod = pod_of(of_kind(load(K8S / name), "Deployment"))
        assert pod["serviceAccountName"] == account["metadata"]["name"]


def test_dumps_expire() -> None:
    """The lifecycle covers the manifests' prefix: dumps go after 30 days, abandoned uploads after one."""
    (rule,) = read("s3-lifecycle.json")["Rules"]
    assert rule["Status"] == "Enabled"
    assert rule["Filter"] == {"Prefix": f"{ENVIRONMENT['PREFIX']}/"}
    assert rule["Expiration"] == {"Days": 30}
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
