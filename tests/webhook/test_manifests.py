from __future__ import annotations

import base64
import functools
import os
import re
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from kubernetes_validate import latest_version, validate  # type: ignore[import-untyped]  # the package carries no types

from sidecar.commands.webhook import command
from sidecar.inject.model import SWITCH, Options
from sidecar.webhook.server import _IN_FLIGHT_S
from tests.k8s.manifests import K8S, Manifest, of_kind, pod_of
from tests.k8s.test_manifests import assert_restricted
from tests.webhook.reviews import pod, review_of
from tests.webhook.serving import post, serving

OVERLAYS = ["cert-manager", "given-secret"]
README = (K8S / "webhook" / "README.md").read_text()

each_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


@functools.cache
def rendered(overlay: str) -> list[Manifest]:
    """An overlay as kubectl renders it; skips the test where there is no kubectl."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl isn't on PATH, so the kustomization can't be rendered")
    done = subprocess.run(
        [kubectl, "kustomize", str(K8S / "webhook" / overlay)], check=True, capture_output=True, text=True
    )
    return list(yaml.safe_load_all(done.stdout))


def webhooks(overlay: str) -> list[Manifest]:
    """The two entries of the webhook configuration."""
    entries: list[Manifest] = of_kind(rendered(overlay), "MutatingWebhookConfiguration")["webhooks"]
    return entries


def service_name(overlay: str) -> str:
    """The name that the API server calls the webhook by, which its certificate must have."""
    service = of_kind(rendered(overlay), "Service")["metadata"]
    return f"{service['name']}.{service['namespace']}.svc"


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """What a label selector says of these labels (apimachinery's rules: NotIn holds where there is no such label)."""
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for rule in selector.get("matchExpressions", []):
        assert rule["operator"] == "NotIn"
        if labels.get(rule["key"]) in rule["values"]:
            return False
    return True


@each_overlay
@pytest.mark.parametrize("version", ["1.29", latest_version()])
def test_manifests_fit_the_schemas_of_the_api(overlay: str, version: str) -> None:
    """Every document of Kubernetes' own kinds is valid, with no unknown field."""
    own = [each for each in rendered(overlay) if not each["apiVersion"].startswith("cert-manager.io/")]
    assert len(own) >= 6
    for manifest in own:
        validate(manifest, version, strict=True)


@each_overlay
def test_the_webhook_satisfies_pod_security_restricted(overlay: str) -> None:
    """Its namespace enforces that, and it can do nothing at the API server."""
    spec = pod_of(of_kind(rendered(overlay), "Deployment"))
    assert [set(volume) for volume in spec["volumes"]] == [{"name", "secret"}]  # which the level allows as well
    assert_restricted(spec | {"volumes": []})
    assert spec["automountServiceAccountToken"] is False
    assert spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    assert not [each for each in rendered(overlay) if "Role" in each["kind"]]
    assert of_kind(rendered(overlay), "Namespace")["metadata"]["name"] == spec_namespace(overlay)


def spec_namespace(overlay: str) -> str:
    """The namespace that the webhook runs in."""
    namespace: str = of_kind(rendered(overlay), "Deployment")["metadata"]["namespace"]
    return namespace


@each_overlay
def test_the_arguments_are_options_of_the_command(
    overlay: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The container's command line is accepted; certificate, port and image come from where the manifests have them."""
    spec = pod_of(of_kind(rendered(overlay), "Deployment"))
    (container,) = spec["containers"]
    (mount,) = container["volumeMounts"]
    (volume,) = spec["volumes"]
    assert volume["secret"]["secretName"] == "oom-heap-dumper-webhook-tls"
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).touch()
    for variable in container["env"]:
        monkeypatch.setenv(variable["name"], variable["value"])
    name, *arguments = [each.replace(mount["mountPath"] + "/", f"{tmp_path}/") for each in container["args"]]
    parsed = command.make_context(name, arguments).params
    assert name == "webhook"
    assert (parsed["tls_cert"], parsed["tls_key"]) == (tmp_path / "tls.crt", tmp_path / "tls.key")
    assert parsed["image"] == container["image"]
    assert parsed["image"] != Options().image
    assert parsed["bucket"] == "example-heap-dumps"
    assert container["ports"] == [{"name": "https", "containerPort": parsed["port"]}]
    assert spec["terminationGracePeriodSeconds"] > parsed["drain"] + _IN_FLIGHT_S


@each_overlay
def test_no_pod_waits_long_or_fails_because_of_us(overlay: str) -> None:
    """Each entry ignores failures, is asked about new pods only, once, for seconds at most, and has no side effect."""
    for entry in webhooks(overlay):
        assert entry["failurePolicy"] == "Ignore"
        assert entry["timeoutSeconds"] <= 5
        assert entry["timeoutSeconds"] < _IN_FLIGHT_S
        assert entry["sideEffects"] == "None"
        assert entry["reinvocationPolicy"] == "Never"
        assert entry["admissionReviewVersions"] == ["v1"]
        (rule,) = entry["rules"]
        assert (rule["resources"], rule["operations"], rule["apiGroups"]) == (["pods"], ["CREATE"], [""])
        assert entry["clientConfig"]["service"]["path"] == "/mutate"


@each_overlay
def test_the_selectors_do_what_the_readme_says(overlay: str) -> None:
    """Each cell of its table: a pod is asked about once or not at all."""
    rows = re.findall(r"^\| (?:of the pod: )?`?(none|enabled|disabled)`? \| (.*) \|$", README, re.MULTILINE)
    assert [row for row, _ in rows] == ["none", "enabled", "disabled"]
    for pod_label, cells in rows:
        for namespace_label, cell in zip(("none", "enabled", "disabled"), cells.split(" | "), strict=True):
            of_pod, of_namespace = (
                {SWITCH: label} if label != "none" else {} for label in (pod_label, namespace_label)
            )
            for name, count in (("shop", int("yes" in cell)), ("kube-system", 0), (spec_namespace(overlay), 0)):
                labels = {"kubernetes.io/metadata.name": name, **of_namespace}
                asked = [
                    entry["name"]
                    for entry in webhooks(overlay)
                    if selects(entry["namespaceSelector"], labels) and selects(entry["objectSelector"], of_pod)
                ]
                assert len(asked) == count, (pod_label, namespace_label, name)


@each_overlay
def test_service_and_probes_reach_the_webhook(overlay: str) -> None:
    """Names, labels and ports fit together from the configuration to the container."""
    deployment, service = (of_kind(rendered(overlay), kind) for kind in ("Deployment", "Service"))
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    budget = of_kind(rendered(overlay), "PodDisruptionBudget")
    for selector in (service["spec"]["selector"], deployment["spec"]["selector"]["matchLabels"]):
        assert selector.items() <= labels.items()
    assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert budget["spec"]["minAvailable"] < deployment["spec"]["replicas"]
    for entry in webhooks(overlay):
        called = entry["clientConfig"]["service"]
        assert f"{called['name']}.{called['namespace']}.svc" == service_name(overlay)
    (container,) = pod_of(deployment)["containers"]
    (port,) = service["spec"]["ports"]
    assert port["targetPort"] == container["ports"][0]["name"]
    assert port["port"] == 443
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["scheme"] == "HTTPS"
        assert container[probe]["httpGet"]["port"] == port["targetPort"]


def test_cert_manager_makes_the_certificate_that_is_mounted_and_trusted() -> None:
    """The Secret is the Deployment's, the name the service's, and the CA injector looks at the same Certificate."""
    certificates = [each for each in rendered("cert-manager") if each["kind"] == "Certificate"]
    (leaf,) = [each for each in certificates if not each["spec"].get("isCA")]
    (authority,) = [each for each in certificates if each["spec"].get("isCA")]
    issuers = {each["metadata"]["name"]: each["spec"] for each in rendered("cert-manager") if each["kind"] == "Issuer"}
    assert leaf["spec"]["dnsNames"] == [service_name("cert-manager")]
    assert leaf["spec"]["secretName"] == "oom-heap-dumper-webhook-tls"
    assert issuers[leaf["spec"]["issuerRef"]["name"]] == {"ca": {"secretName": authority["spec"]["secretName"]}}
    assert issuers[authority["spec"]["issuerRef"]["name"]] == {"selfSigned": {}}
    annotations = of_kind(rendered("cert-manager"), "MutatingWebhookConfiguration")["metadata"]["annotations"]
    where = f"{leaf['metadata']['namespace']}/{leaf['metadata']['name']}"
    assert annotations == {"cert-manager.io/inject-ca-from": where}


def test_the_manifests_bring_no_authority_along() -> None:
    """The placeholder is base64, as the field demands, but no certificate that anybody could have the key of."""
    for entry in webhooks("given-secret"):
        assert b"CERTIFICATE-----" not in base64.b64decode(entry["clientConfig"]["caBundle"], validate=True)


def test_the_readme_makes_a_certificate_that_works(tmp_path: Path) -> None:
    """Its openssl lines, run as they stand: the webhook serves the pair, and by the service's name it is trusted."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl isn't on PATH")
    (block,) = [text for text in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) if "openssl" in text]
    script = block.partition("\nkubectl create")[0]
    folder = tmp_path / "k8s" / "webhook" / "given-secret"
    folder.parent.mkdir(parents=True)
    shutil.copytree(K8S / "webhook" / "given-secret", folder)
    subprocess.run(
        ["bash", "-euc", script], cwd=tmp_path, env={"PATH": os.environ["PATH"]}, check=True, capture_output=True
    )
    patches = yaml.safe_load((folder / "ca-bundle.yaml").read_text())
    bundle = base64.b64decode(patches[0]["value"], validate=True)
    assert patches[0]["value"] == patches[1]["value"]
    assert bundle == (tmp_path / "ca.crt").read_bytes()
    with serving(tmp_path / "tls.crt", tmp_path / "tls.key", "--image", "registry.example.com/o:1") as webhook:
        connection = webhook.connect(tmp_path / "ca.crt")
        context = ssl.create_default_context(cadata=bundle.decode())
        connection.sock = context.wrap_socket(
            webhook.dial(), server_hostname="oom-heap-dumper-webhook.oom-heap-dumper.svc"
        )
        assert "patch" in post(connection, review_of(pod()))


def test_a_click_command_is_what_is_tested() -> None:
    """The help of the command names every flag that the README does."""
    flags = set(re.findall(r"`(--[a-z-]+)", README))
    declared = {flag for each in command.params if isinstance(each, click.Option) for flag in each.opts}
    declared |= {flag for each in command.params if isinstance(each, click.Option) for flag in each.secondary_opts}
    assert flags
    assert flags <= declared
