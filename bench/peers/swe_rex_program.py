"""Runs in SWE-ReX's own environment: for every line it reads, a deployment from nothing to a command's output and away again.

Answers each line with one of JSON: ``{"ms": 812.3}`` or ``{"error": "…"}``. It stays, so that no start of Python counts.
"""

import asyncio
import importlib
import json
import logging
import sys
import time


async def once(image: str, docker_args: list[str]) -> float:
    """Milliseconds to the first command's output, with the quicker of SWE-ReX's two ways to run one (no shell session)."""
    deployments = importlib.import_module("swerex.deployment.docker")
    abstract = importlib.import_module("swerex.runtime.abstract")
    deployment = deployments.DockerDeployment(image=image, pull="never", docker_args=docker_args, startup_timeout=50)
    began = time.perf_counter()
    try:
        await deployment.start()
        answer = await deployment.runtime.execute(abstract.Command(command=["echo", "ready"]))
        took_s = time.perf_counter() - began
    finally:
        await deployment.stop()
    if answer.stdout != "ready\n":
        raise RuntimeError(f"the command said {answer.stdout!r}, {answer.stderr!r}")
    return took_s * 1000


async def main(image: str, docker_args: list[str]) -> None:
    """Answer every line."""
    logging.disable(logging.CRITICAL)
    importlib.import_module("swerex.deployment.docker")  # before the clock runs
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        try:
            said: dict[str, float | str] = {"ms": await once(image, docker_args)}
        except Exception as error:  # noqa: BLE001  (whatever it is, the benchmark tells it)
            said = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
