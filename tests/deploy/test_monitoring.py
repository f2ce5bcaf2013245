"""Alerts and dashboard: tried by Prometheus' own tools, and bound to the names that the farm really exports."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client import REGISTRY

import workers.metrics  # noqa: F401 - registers what the workers export
from api.metrics import Metrics
from storage.database import Database
from tests.programs import needed

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "k8s" / "monitoring"
ALERTS: list[dict[str, Any]] = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]
DASHBOARD: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]

PROMETHEUS = "Debian's prometheus"


def tool(*arguments: str) -> None:
    done = subprocess.run(
        [needed("promtool", PROMETHEUS), *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_configuration_and_the_rules_are_valid() -> None:
    tool("check", "config", str(MONITORING / "prometheus.yml"))


def test_every_alert_fires_in_its_trouble_and_none_without() -> None:
    cases = ROOT / "tests" / "deploy" / "alerts_test.yml"
    tested = yaml.safe_load(cases.read_text())["tests"]
    names = {one["alert"] for one in ALERTS}
    assert {one["alertname"] for one in tested[0]["alert_rule_test"]} == names
    assert {one["alert_rule_test"][0]["alertname"] for one in tested[1:]} == names
    tool("test", "rules", str(cases))


def test_every_alert_tells_a_person_what_to_do() -> None:
    for one in ALERTS:
        assert set(one["annotations"]) == {"summary", "action"}
        assert one["labels"]["severity"] in {"page", "warn"}


def test_alerts_and_dashboard_ask_only_for_what_the_farm_exports(database: Database) -> None:
    exported = set(re.findall(r"^# TYPE (\S+)", Metrics(database).text().decode(), re.MULTILINE))
    for family in REGISTRY.collect():
        exported |= {family.name, *(sample.name for sample in family.samples), f"{family.name}_total"}
        exported |= {f"{family.name}_bucket"} if family.type == "histogram" else set()
    exported |= {"fluxfarm_http_request_seconds_bucket", "fluxfarm_jobs", "fluxfarm_tickets"}
    asked = set(re.findall(r"\bfluxfarm_\w+", " ".join([*QUERIES, *(one["expr"] for one in ALERTS)])))
    assert asked - exported == set()


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[httpx.Client]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = tmp_path / "prometheus.yml"
    config.write_text("scrape_configs: []\n")
    process = subprocess.Popen(
        [
            needed("prometheus", PROMETHEUS),
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10) as client:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                try:
                    if client.get("/-/ready").status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                time.sleep(0.05)
            yield client
    finally:
        process.terminate()
        process.wait(timeout=20)


def test_a_real_prometheus_understands_every_query_of_the_dashboard(prometheus: httpx.Client) -> None:
    assert len(QUERIES) > 20
    for query in QUERIES:
        reply = prometheus.get("/api/v1/query", params={"query": query})
        assert reply.json()["status"] == "success", (query, reply.text)
