"""The real Prometheus scrapes the real exporter; promtool checks the rules; every alert has its runbook entry."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import yaml

from geomagic_dagster.drill.place import free_ports
from geomagic_dagster.monitoring.counts import METRICS
from geomagic_dagster.monitoring.exporter import serve
from geomagic_dagster.monitoring.surroundings import AGES, VALUES
from geomagic_dagster.monitoring.watcher import COUNTERS, GAUGES
from tests.conftest import REPOSITORY
from tests.toy_stages.scans import write_toy_scan

FOLDER = REPOSITORY / "deploy" / "observability"
ALERTS = [rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
OWN = re.findall(r'"(geomagic_exporter_\w+)"', (REPOSITORY / "geomagic_dagster/monitoring/exporter.py").read_text())


def binary(name: str) -> str:
    """A program of Prometheus, from the environment of Python or the machine."""
    path = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if path is None:
        pytest.skip(f"no {name} here; `make setup-prometheus` fetches it on Debian")
    return path


def known_names() -> set[str]:
    watcher = {*GAUGES, *(f"{name}_total" for name in COUNTERS)}
    names = {*AGES, *VALUES, *watcher, "geomagic_process_ends_total", "up"} | {
        f"{name}{end}" for name in OWN for end in ("", "_total", "_info")
    }
    for metric in METRICS.values():
        ends = ("_bucket", "_count", "_sum") if metric.kind in ("histogram", "summary") else ("",)
        names |= {metric.name + end for end in ends} | {metric.last}
    return names


def named_in(text: str) -> set[str]:
    return set(re.findall(r"\bgeomagic_[a-z_]+\b", text)) - {"geomagic_dagster"}


def test_every_alert_has_its_entry_and_every_entry_its_alert():
    entries = re.findall(r"^## (\w+)$", (FOLDER / "RUNBOOK.md").read_text(), re.MULTILINE)
    assert sorted(entries) == sorted(rule["alert"] for rule in ALERTS)
    for rule in ALERTS:
        assert rule["annotations"]["runbook_url"].endswith(f"RUNBOOK.md#{rule['alert'].lower()}")
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["for"]
        assert rule["annotations"]["summary"].endswith(".")


@pytest.mark.parametrize("name", ["alerts.yml", "alerts_test.yml", "RUNBOOK.md", "dashboard.json"])
def test_every_metric_that_is_named_exists(name):
    whole = {metric.name for metric in METRICS.values()} if name.endswith(".md") else set()
    assert named_in((FOLDER / name).read_text()) <= known_names() | whole


def test_every_alert_is_tested_to_fire_and_to_be_silent():
    cases = [
        case
        for test in yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
        for case in test["alert_rule_test"]
    ]
    for rule in ALERTS:
        expected = [case["exp_alerts"] for case in cases if case["alertname"] == rule["alert"]]
        assert any(expected), rule["alert"]
        assert not all(expected), rule["alert"]


@pytest.mark.parametrize(
    "arguments",
    [["check", "rules", "alerts.yml"], ["check", "config", "prometheus.yml"], ["test", "rules", "alerts_test.yml"]],
    ids=" ".join,
)
def test_promtool_agrees(arguments):
    done = subprocess.run([binary("promtool"), *arguments], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_finds_nothing_to_better_in_the_page(toys, instance, follow):
    toys.process(write_toy_scan(toys.corpus / "room"), instance)
    exporter = follow(instance, toys)
    exporter.look()
    done = subprocess.run(
        [binary("promtool"), "check", "metrics"], input=exporter.page(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_prometheus_scrapes_it_and_loads_the_rules(toys, instance, follow, tmp_path):
    prometheus = binary("prometheus")
    toys.process(write_toy_scan(toys.corpus / "room"), instance)
    exporter, stop, ports = follow(instance, toys), threading.Event(), free_ports(2)
    server = threading.Thread(target=serve, args=(exporter, "127.0.0.1", ports[0], stop, 0.5))
    server.start()
    config = (FOLDER / "prometheus.yml").read_text()
    config = (
        config.replace("9464", str(ports[0])).replace("15s", "1s").replace("alerts.yml", str(FOLDER / "alerts.yml"))
    )
    (tmp_path / "prometheus.yml").write_text(config)
    process = subprocess.Popen(
        [
            prometheus,
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{ports[1]}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def ask(path: str, **query: str):
        address = f"http://127.0.0.1:{ports[1]}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(address, timeout=5) as answer:
            return json.load(answer)["data"]

    def wait_for(expression: str, value: str) -> None:
        until, result = time.monotonic() + 120, None
        while time.monotonic() < until:
            try:
                result = ask("query", query=expression)["result"]
                if result and result[0]["value"][1] == value:
                    return
            except (urllib.error.URLError, ConnectionError):
                pass
            time.sleep(0.2)
        raise AssertionError(f"{expression}: expected {value}; got {result}")

    try:
        wait_for('up{job="geomagic"}', "1")
        wait_for("sum(geomagic_runs_total)", "1")
        wait_for('geomagic_stage_number{stage="shades", number="frames"}', "3")
        wait_for("sum(geomagic_step_duration_seconds_count)", "5")
        toys.process(toys.corpus / "room", instance)
        wait_for("sum(geomagic_runs_total)", "2")
        rules = [rule for group in ask("rules")["groups"] for rule in group["rules"]]
        assert {rule["name"] for rule in rules} == {rule["alert"] for rule in ALERTS}
        assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
        names = ask("label/__name__/values")
        assert {"geomagic_disk_free_bytes", "process_resident_memory_bytes"} <= set(names)
    finally:
        process.terminate()
        stop.set()
        process.wait(90)
        server.join(90)


def test_a_port_that_is_taken_is_said_in_one_sentence(tmp_path):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("GEOMAGIC", "DAGSTER"))
        }
        done = subprocess.run(
            [sys.executable, "-m", "geomagic_dagster.cli", "metrics", "--port", str(port)],
            env=environment | {"GEOMAGIC_HOME": str(tmp_path / "home"), "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 2, done.stderr
    assert f"127.0.0.1:{port}: expected a free port" in done.stderr
    assert "Traceback" not in done.stderr
