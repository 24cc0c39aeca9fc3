"""A workspace from nothing to a command's first output, through the API, against ``docker run`` of the same image."""

import secrets
import shutil
import subprocess
import sys
import time

import httpx2
from bench.budgets import COLD_START
from bench.report import Row, publish

from ff_cloud.testing.server import running_server, scratch_folder, standing_network
from ff_cloud.vms.image import LATEST

ROUNDS = 5
WORDS = ["echo", "ready"]
POLL_S = 0.01
ROUND_TIMEOUT_S = 60.0


def through_docker() -> float:
    """Milliseconds from the command line to the first output."""
    began = time.monotonic()
    with subprocess.Popen(["docker", "run", "--rm", LATEST, *WORDS], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        took_s = time.monotonic() - began
        process.communicate(timeout=ROUND_TIMEOUT_S)
    return took_s * 1000


def through_us(api: httpx2.Client, number: int) -> tuple[float, float]:
    """Milliseconds from the order to READY, and to the first output of a command."""
    began = time.monotonic()
    address = "/v1/workspaces/" + api.post("/v1/workspaces", json={"name": f"bench {number}"}).raise_for_status().json()["id"]
    while (status := api.get(address).raise_for_status().json()["status"]) != "READY":
        if status == "FAILED" or time.monotonic() - began > ROUND_TIMEOUT_S:
            raise SystemExit(f"bench: the workspace is {status} after {time.monotonic() - began:.0f} s")
        time.sleep(POLL_S)
    ready_s = time.monotonic() - began
    with api.stream("POST", f"{address}/exec", json={"argv": WORDS}) as answer:
        next(answer.raise_for_status().iter_lines())
        output_s = time.monotonic() - began
    _delete(api, address)
    return ready_s * 1000, output_s * 1000


def _delete(api: httpx2.Client, address: str) -> None:
    api.delete(address).raise_for_status()
    deadline = time.monotonic() + ROUND_TIMEOUT_S
    while api.get(address).status_code != 404:
        if time.monotonic() > deadline:
            raise SystemExit("bench: a workspace was not deleted in time")
        time.sleep(POLL_S)


def main() -> int:
    """Measure, one after the other in turn, so that both meet the same machine."""
    docker: list[float] = []
    ready: list[float] = []
    output: list[float] = []
    folder = scratch_folder("ff-bench-")
    try:
        with standing_network("bench") as network:
            settings = {"FF_DEPLOYMENT": network.deployment, "FF_VM_IMAGE": LATEST}
            with (
                running_server(folder, settings) as server,
                httpx2.Client(base_url=server.url, timeout=ROUND_TIMEOUT_S, trust_env=False) as api,
            ):
                account = {"email": "bench@example.com", "password": secrets.token_urlsafe(24)}
                token = api.post("/v1/auth/signup", json=account).raise_for_status().json()["access_token"]
                api.headers["Authorization"] = f"Bearer {token}"
                for number in range(ROUNDS + 1):
                    peer, (to_ready, to_output) = through_docker(), through_us(api, number)
                    if number:  # the first round fills caches of both
                        docker.append(peer)
                        ready.append(to_ready)
                        output.append(to_output)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    peer_row, ours = Row("docker run to first output", "ms", docker), Row("cold: POST to first output", "ms", output)
    ratio = Row("cold: ratio of medians", "x", [ours.median / peer_row.median], COLD_START.ratio_max)
    return publish("cold_start", [peer_row, Row("cold: POST to READY", "ms", ready), ours, ratio])


if __name__ == "__main__":
    sys.exit(main())
