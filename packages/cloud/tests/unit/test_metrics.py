"""Every series is there from the start, at 0, and nothing that is counted later makes a new one."""

import inspect
from typing import Literal, get_args, get_origin

import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from ff_cloud.kit.http_metrics import counting
from ff_cloud.kit.metrics import Metrics, OperationMetrics, PoolMetrics, RefusalReason, status_class
from ff_core.contract.workspace import VmStatus

KIND, STEP, LOOP = "provision", "container", "sweep"
CLOCK = {"ff_loop_last_success_timestamp_seconds", "ff_build_info"}
"""Those that are not 0 in a fresh process."""


def series(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(metrics.exposition().decode())
    samples = [sample for family in families for sample in family.samples if not sample.name.startswith("process_")]
    return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}


@pytest.fixture
def metrics() -> Metrics:
    built = Metrics.build()
    built.operations.expect(KIND, [STEP])
    built.loops.expect(LOOP, 1000.0)
    built.http.expect("GET", "/v1/things/{thing}")
    return built


WORDS = {"kind": KIND, "step": STEP, "loop": LOOP, "method": "GET", "route": "/v1/things/{thing}"}
"""What stands for a name that was told with ``expect``."""


def values(method, name, note):
    """What to try for one argument: every word of a closed set, else one value."""
    if get_origin(note) is Literal:
        return get_args(note)
    if (method.__name__, name) == ("refused", "reason"):
        return [*get_args(RefusalReason), "something new"]
    if name == "counts":
        return [{status: 1} for status in VmStatus]
    if name == "status":
        return [0, 200, 302, 404, 503]
    if name in WORDS:
        return [WORDS[name]]
    if note in (int, float):
        return [note(1)]
    return [1.0] if note == float | None else [lambda: 1]


def arguments(method):
    """Calls that try each value of each argument; every combination would be too many."""
    parameters = inspect.signature(method, eval_str=True).parameters
    axes = {name: values(method, name, parameter.annotation) for name, parameter in parameters.items()}
    first = {name: found[0] for name, found in axes.items()}
    return [first | {name: value} for name, found in axes.items() for value in found] or [{}]


def groups(metrics):
    return [getattr(metrics, name) for name in Metrics.__dataclass_fields__ if name != "registry"]


def test_a_fresh_process_shows_every_series_at_zero(metrics):
    before = series(metrics)
    assert {name for (name, _), value in before.items() if value != 0} == CLOCK
    called = 0
    for group in groups(metrics):
        for name, method in inspect.getmembers(group, inspect.ismethod):
            if name.startswith("_") or name == "expect":
                continue
            for given in arguments(method):
                method(**given)
                called += 1
    assert called > 50
    after = series(metrics)
    assert after.keys() == before.keys()
    still_zero = {name for (name, _), value in after.items() if value == 0 and not name.endswith("_bucket")}
    # Those with two closed labels are tried along each axis, not in every combination; each name was counted somewhere.
    assert still_zero <= {name for (name, _), value in after.items() if value != 0} | {"ff_event_streams_open"} | {
        "ff_loop_failures_in_a_row"
    }


def test_names_from_outside_make_no_series(metrics):
    before = series(metrics).keys()
    metrics.http.answered("BREW", "/teapot/1", 418, 0.1)
    metrics.http.answered("GET", "/v1/things/7", 404, None)
    after = series(metrics)
    assert after.keys() == before
    assert after["ff_http_requests_total", frozenset({("method", "other"), ("route", "other"), ("status", "4xx")})] == 2


def test_each_route_of_an_app_is_counted_under_its_template(metrics):
    app = FastAPI()
    app.get("/pages/{page}")(lambda page: page)
    answered = counting(app, metrics.http)
    answered({"method": "GET", "route": app.routes[-1]}, 200, 0.003)
    found = series(metrics)
    key = frozenset({("method", "GET"), ("route", "/pages/{page}")})
    assert found["ff_http_requests_total", key | {("status", "2xx")}] == 1
    assert found["ff_http_request_duration_seconds_count", key] == 1


@pytest.mark.parametrize(("status", "found"), [(0, "cut"), (101, "cut"), (204, "2xx"), (304, "3xx"), (429, "4xx"), (599, "5xx")])
def test_classes_of_status(status, found):
    assert status_class(status) == found


def test_two_processes_share_nothing():
    one, other = Metrics.build(), Metrics.build()
    one.pool.hit(0.01)
    assert series(one)["ff_pool_hits_total", frozenset()] == 1
    assert series(other)["ff_pool_hits_total", frozenset()] == 0
    assert isinstance(one.pool, PoolMetrics)
    assert isinstance(other.operations, OperationMetrics)


def test_memory_and_file_descriptors_of_the_process_are_told():
    text = Metrics.build().exposition().decode()
    assert "\nprocess_open_fds " in text
    assert "\nprocess_resident_memory_bytes " in text
    assert "_created" not in text
