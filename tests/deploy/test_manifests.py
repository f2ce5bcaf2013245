"""What the cluster would get: the rendered overlays, looked at with the eyes of Pod Security and of the network."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.programs import needed

ROOT = Path(__file__).resolve().parents[2]
OVERLAYS = ("dev", "gpu", "remote-only")
WORKLOADS = ("Deployment", "StatefulSet", "Job")


@cache
def rendered(overlay: str) -> tuple[dict[str, Any], ...]:
    return render(ROOT / "k8s" / "overlays" / overlay)


def render(folder: Path) -> tuple[dict[str, Any], ...]:
    command = [needed("kubectl", "Debian's kubernetes-client"), "kustomize", str(folder)]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    return tuple(yaml.safe_load_all(output))


def of(overlay: str, *kinds: str) -> Iterator[dict[str, Any]]:
    return (one for one in rendered(overlay) if one["kind"] in kinds)


def pods(overlay: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for one in of(overlay, *WORKLOADS):
        yield one["metadata"]["name"], one["spec"]["template"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_is_restricted(overlay: str) -> None:
    names = []
    for name, pod in pods(overlay):
        names.append(name)
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not any("hostPath" in volume for volume in spec["volumes"]), name
        for container in spec["containers"]:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False, name
            assert own["readOnlyRootFilesystem"] is True, name
            assert own["capabilities"] == {"drop": ["ALL"]}, name
            assert "memory" in container["resources"]["limits"], name
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), name
    assert {"api", "scheduler", "webhooks", "flower", "migrate"} <= set(names)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_runs_for_ever_is_probed_and_stops_in_its_time(overlay: str) -> None:
    grace = {"worker-gpu": 600, "worker-remote": 60, "worker-cpu": 30, "api": 35, "webhooks": 30}
    for name, pod in pods(overlay):
        if pod["spec"].get("restartPolicy") == "OnFailure" or "fluxfarm/service" in pod["metadata"]["labels"]:
            continue
        (container,) = pod["spec"]["containers"]
        assert "livenessProbe" in container, name
        assert pod["spec"]["terminationGracePeriodSeconds"] >= grace.get(name, 10), name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_whoever_routes_or_calls_reads_the_keys_of_providers(overlay: str) -> None:
    wanted = {"api": [True], "scheduler": [True], "worker-remote": [None]}  # the first two also run without them
    for name, pod in pods(overlay):
        sources = [one.get("secretRef", {}) for one in pod["spec"]["containers"][0].get("envFrom", ())]
        found = [one.get("optional") for one in sources if one.get("name") == "fluxfarm-providers"]
        assert found == wanted.get(name, []), name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_secret_stands_in_the_manifests(overlay: str) -> None:
    assert not list(of(overlay, "Secret"))
    for one in of(overlay, "ConfigMap"):
        assert not [name for name in one["data"] if any(word in name for word in ("PASSWORD", "SECRET", "_KEY"))]
        assert not [name for name in one["data"] if name in {"DATABASE_URL", "REDIS_URL"}]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_only_those_who_must_reach_the_outside(overlay: str) -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in of(overlay, "NetworkPolicy")}
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    (rule,) = policies["outbound"]["egress"]
    assert [port["port"] for port in rule["ports"]] == [443]
    assert {"10.0.0.0/8", "169.254.0.0/16", "192.168.0.0/16"} <= set(rule["to"][0]["ipBlock"]["except"])
    outside = {name for name, pod in pods(overlay) if pod["metadata"]["labels"].get("fluxfarm/outbound") == "true"}
    assert outside <= {"api", "webhooks", "worker-remote", "fetch-models"}
    assert "worker-gpu" not in outside
    for name, pod in pods(overlay):  # the policies find the pods by this label
        assert pod["metadata"]["labels"]["app.kubernetes.io/part-of"] == "fluxfarm", name


def test_the_parts_that_settings_may_name_are_within_reach() -> None:
    (policy,) = [one for one in of("gpu", "NetworkPolicy") if one["metadata"]["name"] == "services"]
    reached = {
        rule["to"][0]["podSelector"]["matchLabels"]["fluxfarm/service"]: {port["port"] for port in rule["ports"]}
        for rule in policy["spec"]["egress"]
    }
    assert reached == {
        "postgres": {5432},
        "valkey": {6379},
        "objects": {8333},
        "rabbitmq": {5671, 5672},
        "collector": {4318},
    }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_workers_see_a_deny_list_where_there_is_one(overlay: str) -> None:
    found = {name: pod["spec"] for name, pod in pods(overlay) if name.startswith("worker-")}
    assert found
    for name, spec in found.items():
        assert {"name": "files", "configMap": {"name": "fluxfarm-files", "optional": True}} in spec["volumes"], name
        mounts = spec["containers"][0]["volumeMounts"]
        assert {"name": "files", "mountPath": "/files", "readOnly": True} in mounts, name


@pytest.mark.parametrize("overlay", ["gpu", "remote-only"])
def test_workers_scale_to_zero_on_what_waits_and_what_runs(overlay: str) -> None:
    targets = {name for name, _ in pods(overlay)}
    scaled = list(of(overlay, "ScaledObject"))
    assert scaled
    for one in scaled:
        spec = one["spec"]
        assert spec["scaleTargetRef"]["name"] in targets
        assert (spec["minReplicaCount"], spec["cooldownPeriod"] >= 300) == (0, True)
        (trigger,) = spec["triggers"]
        assert trigger["type"] == "prometheus"
        assert "QUEUED|RUNNING" in trigger["metadata"]["query"]
        assert {"serverAddress", "query", "threshold"} <= set(trigger["metadata"])


def test_the_gpu_worker_has_a_gpu_its_weights_and_no_way_to_change_them() -> None:
    (pod,) = [pod for name, pod in pods("gpu") if name == "worker-gpu"]
    (container,) = pod["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "models"]
    assert mount["readOnly"] is True


def test_the_ingress_leaves_slashes_in_model_ids_alone() -> None:
    (ingress,) = of("gpu", "Ingress")
    annotations = ingress["metadata"]["annotations"]
    assert not [name for name in annotations if "rewrite" in name]
    assert annotations["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"
    assert [path["path"] for path in ingress["spec"]["rules"][0]["http"]["paths"]] == ["/"]


def test_with_loras_the_api_and_the_gpu_workers_see_the_same_folder(tmp_path: Path) -> None:
    told = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "namespace": "fluxfarm"}
    parts = {"resources": ["base"], "components": ["components/worker-gpu", "components/loras"]}
    wanted = {
        key: [os.path.relpath(ROOT / "k8s" / one, tmp_path.resolve()) for one in ones] for key, ones in parts.items()
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(told | wanted))
    deployments = {one["metadata"]["name"]: one for one in render(tmp_path) if one["kind"] == "Deployment"}
    for name in ("api", "worker-gpu"):
        spec = deployments[name]["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        assert container["env"] == [{"name": "FLUXFARM_LORAS", "value": "/models/loras"}]
        assert {"name": "models", "mountPath": "/models", "readOnly": True} in container["volumeMounts"]
        assert [one for one in spec["volumes"] if one["name"] == "models"] == [
            {"name": "models", "persistentVolumeClaim": {"claimName": "models", "readOnly": True}}
        ]
