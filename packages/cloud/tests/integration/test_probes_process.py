"""The probes of real processes: what a fresh one shows, and that its readiness follows what becomes of its parts."""

import re
import time
from contextlib import contextmanager

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from ff_cloud.testing.server import own_environment, program, running

PROBES = re.compile(r"^probes +(http://\S+)\n", re.MULTILINE)
KINDS = {"warm", "discard", "provision", "revive", "suspend", "wake", "upgrade", "checkpoint", "terminate"}
LOOPS = {"operations", "census", "copier", "mail", "auth", "reconcile", "health", "capacity", "vms", "pool", "saver", "sweep"}
MOVES_BY_ITSELF = re.compile(r"process_|ff_loop_|ff_build_info|ff_database_|ff_capacity_|ff_pool_target|ff_operations_due")


@contextmanager
def process(role, url, tmp_path):
    """``ff-cloud ROLE`` without Docker, its probes on a port of their own."""
    settings = {
        "FF_DATABASE_URL": url.render_as_string(hide_password=False),
        "FF_DATA_DIR": str(tmp_path / "data"),
        "FF_DOCKER_HOST": "unix:///nonexistent/docker.sock",
        "FF_GATEWAY_HOST": "127.0.0.1",
        "FF_GATEWAY_PORT": "0",
        "FF_HOST": "127.0.0.1",
        "FF_PORT": "0",
        "FF_METRICS_PORT": "0",
    }
    command, environment = [program("ff-cloud"), role], own_environment(settings)
    with (
        running(command, environment=environment, log=tmp_path / "log", ready=PROBES) as started,
        httpx2.Client(base_url=started.url, trust_env=False, timeout=10) as http,
    ):
        yield http


def until(http, wanted):
    """The first readiness that ``wanted`` accepts, with its HTTP status."""
    deadline = time.monotonic() + 60
    while True:
        answer = http.get("/readyz")
        report = answer.json()
        if wanted(report):
            return answer.status_code, {check["name"]: check for check in report["checks"]}
        assert time.monotonic() < deadline, report
        time.sleep(0.2)


def test_a_worker_that_runs_alone(postgres, tmp_path):
    url = postgres.create_database()
    with process("worker", url, tmp_path) as http:
        samples = [each for family in text_string_to_metric_families(http.get("/metrics").text) for each in family.samples]
        assert {each.labels["kind"] for each in samples if each.name == "ff_operations_total"} >= KINDS
        assert {each.labels["loop"] for each in samples if each.name == "ff_loop_rounds_total"} >= LOOPS
        assert {each.name for each in samples if each.value and not MOVES_BY_ITSELF.match(each.name)} == set()
        names = {each.name for each in samples}
        assert {"ff_pool_hits_total", "ff_vms", "ff_checkpoints_total", "ff_gateway_bytes_total", "process_open_fds"} <= names

        # Docker is away: the worker says so, also of the loops that need it, and is of use all the same.
        status, checks = until(http, lambda report: not next(c for c in report["checks"] if c["name"] == "docker")["ok"])
        assert (status, checks["docker"]["required"], checks["database"]["ok"]) == (200, False, True)
        assert checks["operations"]["ok"]
        assert {name.removeprefix("loop ") for name in checks if name.startswith("loop ")} >= LOOPS

        postgres.drop_database(url)
        status, checks = until(http, lambda report: report["status"] == "unready")
        assert (status, checks["database"]["ok"]) == (503, False)
        assert http.get("/healthz").status_code == 200
        until(http, lambda report: any(c["name"] == "loop operations" and not c["ok"] for c in report["checks"]))


def test_a_gateway_that_runs_alone(postgres, tmp_path):
    with process("gateway", postgres.create_database(), tmp_path) as http:
        status, checks = until(http, lambda report: report["status"] == "ready")
        assert status == 200
        assert checks["gateway"]["detail"] == "listens"
        assert "operations" not in checks
