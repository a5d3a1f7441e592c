from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml
from kubernetes_validate import (  # type: ignore[import-untyped]  # the package carries no types
    ValidationError,
    latest_version,
    validate,
)

from sidecar.core.quantities import parse_bytes
from sidecar.kernel.rights import Credentials, granting_lines
from tests.k8s.manifests import (
    K8S,
    SIDECAR,
    Manifest,
    containers_of,
    deployments,
    load,
    of_kind,
    pod_of,
    rendered,
    rendered_example,
    security_of,
)

OLDEST_VERSION = "1.29"  # the first whose clusters run native sidecars by default
DEPLOYMENTS = deployments()
HARMLESS_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected"}

each_deployment = pytest.mark.parametrize("deployment", DEPLOYMENTS.values(), ids=DEPLOYMENTS.keys())
each_version = pytest.mark.parametrize("version", [OLDEST_VERSION, latest_version()])


def assert_restricted(pod: Manifest) -> None:
    """Every control of the Pod Security Standards' level "restricted" that a field of these manifests can break."""
    for flag in ("hostNetwork", "hostPID", "hostIPC"):
        assert not pod.get(flag)
    for volume in pod.get("volumes", []):
        assert set(volume) - {"name"} <= HARMLESS_VOLUMES
    assert not pod.get("securityContext", {}).get("sysctls")
    for container in containers_of(pod).values():
        security = security_of(pod, container)
        assert not security.get("privileged")
        assert security["allowPrivilegeEscalation"] is False
        assert security["runAsNonRoot"] is True
        assert security.get("runAsUser") != 0
        assert security["seccompProfile"]["type"] in {"RuntimeDefault", "Localhost"}
        assert security["capabilities"]["drop"] == ["ALL"]
        assert not security["capabilities"].get("add")
        assert security.get("procMount", "Default") == "Default"
        assert not any(port.get("hostPort") for port in container.get("ports", []))


@each_version
@pytest.mark.parametrize("name", ["deployment.yaml", "native-sidecar.yaml", "irsa-serviceaccount.yaml"])
def test_manifests_fit_the_schemas_of_the_api(name: str, version: str) -> None:
    """Every document is valid in the oldest and the newest Kubernetes, with no unknown field."""
    for manifest in load(K8S / name):
        validate(manifest, version, strict=True)


@each_version
def test_what_the_component_makes_fits_the_schemas_of_the_api(version: str) -> None:
    """A Deployment with the component's patches applied is valid."""
    validate(DEPLOYMENTS["component"], version, strict=True)


def test_the_schemas_refuse_a_misspelt_field() -> None:
    """The validation is strict: it would notice a field that Kubernetes doesn't know."""
    (account,) = load(K8S / "irsa-serviceaccount.yaml")
    with pytest.raises(ValidationError, match="automountServiceAccounToken"):
        validate(account | {"automountServiceAccounToken": False}, latest_version(), strict=True)


@each_deployment
def test_pods_satisfy_pod_security_restricted(deployment: Manifest) -> None:
    """No field asks for more than the level "restricted" allows."""
    assert_restricted(pod_of(deployment))


@each_deployment
def test_the_sidecar_can_look_into_the_app(deployment: Manifest) -> None:
    """The PID namespace is shared, and every container has the same UID, GID and capabilities."""
    pod = pod_of(deployment)
    assert pod["shareProcessNamespace"] is True
    containers = containers_of(pod)
    assert len(containers) == 2
    contexts = [security_of(pod, container) for container in containers.values()]
    for setting in ("runAsUser", "runAsGroup", "capabilities"):
        assert contexts[0].get(setting) == contexts[1].get(setting)


@each_deployment
def test_the_root_file_system_is_read_only_and_the_spool_is_not(deployment: Manifest) -> None:
    """The spool's default directory is a volume of its own, on disk, that the kubelet won't evict the pod for."""
    pod = pod_of(deployment)
    sidecar = containers_of(pod)[SIDECAR]
    assert security_of(pod, sidecar)["readOnlyRootFilesystem"] is True
    (mount,) = sidecar["volumeMounts"]
    assert mount["mountPath"] == "/var/spool/oom-heap-dumper"
    (volume,) = (volume for volume in pod["volumes"] if volume["name"] == mount["name"])
    assert "medium" not in volume["emptyDir"]
    assert parse_bytes(volume["emptyDir"]["sizeLimit"]) >= parse_bytes("256Mi") + 2**26


@each_deployment
def test_resources_leave_the_uploader_room_and_time(deployment: Manifest) -> None:
    """Memory is bounded with room for the uploader beside the watch; CPU has no tight limit."""
    limits = containers_of(pod_of(deployment))[SIDECAR]["resources"]["limits"]
    assert parse_bytes(limits["memory"]) >= parse_bytes("96Mi")
    assert "cpu" not in limits


@each_deployment
def test_the_resources_are_those_that_were_measured(deployment: Manifest) -> None:
    """All manifests ask for the same, which is what their README derives from the benchmarks."""
    resources = containers_of(pod_of(deployment))[SIDECAR]["resources"]
    assert resources == {"requests": {"cpu": "10m", "memory": "48Mi"}, "limits": {"memory": "128Mi"}}
    assert "asks for 10m CPU and 48Mi, and may have 128Mi" in (K8S / "README.md").read_text()


def test_the_component_advises_what_is_tried_and_checked() -> None:
    """In a pod of several users: the capabilities of the README's row, and those that ``check`` would print."""
    advice = re.search(r"drop ALL and add (.+?) \(", (K8S / "component" / "kustomization.yaml").read_text())
    assert advice is not None
    added = f"add: [{', '.join(re.findall('[A-Z_]+', advice[1]))}]"
    assert f"root, `drop: [ALL]`, `{added}` | any app" in (K8S.parent / "README.md").read_text()
    one, other = (Credentials(uid=uid, gid=uid, permitted=frozenset()) for uid in (1000, 2000))
    assert f"    {added}" in granting_lines(["memory"], [one], other, others=[other])


@each_deployment
def test_the_liveness_probe_has_time_to_start_python(deployment: Manifest) -> None:
    """The probe runs the health command without a shell, and a busy node doesn't fail it."""
    probe = containers_of(pod_of(deployment))[SIDECAR]["livenessProbe"]
    assert probe["exec"]["command"] == ["oom-heap-dumper", "health"]
    assert probe["timeoutSeconds"] >= 5


@each_deployment
def test_the_pod_outlives_the_last_upload(deployment: Manifest) -> None:
    """The pod's grace period is longer than the 20 s the sidecar takes after SIGTERM."""
    assert pod_of(deployment).get("terminationGracePeriodSeconds", 30) > 20


def test_the_native_sidecar_is_the_same_container_elsewhere() -> None:
    """The two manifests differ in where the sidecar stands and in nothing else of it or of the app."""
    plain = containers_of(pod_of(DEPLOYMENTS["deployment"]))
    native = containers_of(pod_of(DEPLOYMENTS["native-sidecar"]))
    assert [container["name"] for container in pod_of(DEPLOYMENTS["native-sidecar"])["initContainers"]] == [SIDECAR]
    assert native == plain | {SIDECAR: plain[SIDECAR] | {"restartPolicy": "Always"}}


def test_the_component_adds_the_same_sidecar() -> None:
    """Only what a component can't know differs: image, bucket, and the security context it can't leave to the pod."""
    plain = containers_of(pod_of(DEPLOYMENTS["deployment"]))[SIDECAR]
    added = containers_of(pod_of(DEPLOYMENTS["component"]))[SIDECAR]
    for field in ("livenessProbe", "resources", "volumeMounts"):
        assert added[field] == plain[field]
    assert added["env"] == [variable for variable in plain["env"] if "fieldRef" in variable.get("valueFrom", {})]
    assert security_of({}, added) == {
        name: setting
        for name, setting in security_of(pod_of(DEPLOYMENTS["deployment"]), plain).items()
        if name not in {"runAsUser", "runAsGroup"}
    }


def test_the_service_finds_the_pods() -> None:
    """The Service selects the pods by their labels and targets a port the app has."""
    for name in ("deployment.yaml", "native-sidecar.yaml"):
        manifests = load(K8S / name)
        service, deployment = of_kind(manifests, "Service"), of_kind(manifests, "Deployment")
        template = deployment["spec"]["template"]
        assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
        ports = [port["name"] for port in containers_of(template["spec"])["app"]["ports"]]
        assert [port["targetPort"] for port in service["spec"]["ports"]] == ports


@each_version
def test_kubectl_renders_the_example(version: str) -> None:
    """`kubectl kustomize` gives valid, restricted manifests in which the sidecar has the app's UID."""
    manifests = rendered_example()
    for manifest in manifests:
        validate(manifest, version, strict=True)
    pod = pod_of(of_kind(manifests, "Deployment"))
    assert_restricted(pod)
    assert list(containers_of(pod)) == ["checkout", SIDECAR]
    assert {security_of(pod, container)["runAsUser"] for container in containers_of(pod).values()} == {10001}
    assert containers_of(pod)[SIDECAR]["image"] == "registry.example.com/oom-heap-dumper:0.1.0"
    (source,) = containers_of(pod)[SIDECAR]["envFrom"]
    assert source["configMapRef"]["name"] == of_kind(manifests, "ConfigMap")["metadata"]["name"]


def test_kubectl_applies_the_component_as_the_tests_do() -> None:
    """What the other tests check of the component is what kubectl makes of it."""
    rendered = pod_of(of_kind(rendered_example(), "Deployment"))
    expected = pod_of(DEPLOYMENTS["component"])
    added = containers_of(rendered)[SIDECAR]
    known_to_the_overlay = {"image", "envFrom"}
    for field in added.keys() - known_to_the_overlay:
        assert added[field] == containers_of(expected)[SIDECAR][field]
    assert rendered["volumes"] == expected["volumes"]
    assert rendered["shareProcessNamespace"] == expected["shareProcessNamespace"]


def test_with_the_patch_for_root_the_app_stays_the_first_container(tmp_path: Path) -> None:
    """It is the default one of kubectl, and that of other patches; a merge puts what it names in front."""
    (block,) = re.findall(r"```yaml\n(patches:.*?)```", (K8S / "README.md").read_text(), re.DOTALL)
    shutil.copytree(K8S / "component", tmp_path / "component")
    (app,) = load(K8S / "component-example" / "app.yaml")
    app["metadata"]["name"] = "shop"
    pod_of(app)["containers"][0]["name"] = "shop"
    (tmp_path / "overlay").mkdir()
    (tmp_path / "overlay" / "app.yaml").write_text(yaml.safe_dump(app))
    kustomization = yaml.safe_load(block) | {"resources": ["app.yaml"], "components": ["../component"]}
    (tmp_path / "overlay" / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    pod = pod_of(of_kind(rendered(tmp_path / "overlay"), "Deployment"))
    assert list(containers_of(pod)) == ["shop", SIDECAR]
    assert security_of(pod, containers_of(pod)[SIDECAR])["runAsUser"] == 0
