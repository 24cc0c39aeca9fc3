"""JupyterHub's configuration for the benchmark; what differs from run to run comes in the environment."""

import os

c = get_config()  # type: ignore[name-defined]  # noqa: F821  (JupyterHub gives it)
place = os.environ

c.JupyterHub.bind_url = f"http://127.0.0.1:{place['BENCH_PORT']}"
c.JupyterHub.hub_bind_url = f"http://{place['BENCH_GATEWAY']}:{place['BENCH_HUB_PORT']}"
c.JupyterHub.hub_connect_url = c.JupyterHub.hub_bind_url
c.JupyterHub.db_url = "sqlite://"
c.JupyterHub.cookie_secret_file = "cookie_secret"
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.services = [{"name": "bench", "api_token": place["BENCH_TOKEN"]}]
c.JupyterHub.load_roles = [
    {"name": "bench", "services": ["bench"], "scopes": ["admin:users", "admin:servers", "access:servers"]},
]
c.JupyterHub.log_level = "WARN"
c.ConfigurableHTTPProxy.command = [place["BENCH_NODE"], place["BENCH_PROXY"]]
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{place['BENCH_PROXY_PORT']}"
c.ConfigurableHTTPProxy.pid_file = "proxy.pid"

c.JupyterHub.spawner_class = "dockerspawner.DockerSpawner"
c.DockerSpawner.image = place["BENCH_IMAGE"]
c.DockerSpawner.pull_policy = "never"
c.DockerSpawner.network_name = place["BENCH_NETWORK"]
c.DockerSpawner.use_internal_ip = True
c.DockerSpawner.remove = True
c.DockerSpawner.prefix = place["BENCH_NETWORK"]
label, _, value = place["BENCH_LABEL"].partition("=")
c.DockerSpawner.extra_create_kwargs = {"labels": {label: value}}
