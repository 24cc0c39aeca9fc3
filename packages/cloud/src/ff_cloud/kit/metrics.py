"""What Prometheus asks a process for, at ``/metrics``. Every series exists from the start, at 0.

A process has one :class:`Metrics`, built in its composition root and handed to the parts that count. Labels are closed sets:
those that the code knows when it starts (routes, kinds of operations, loops) are told with ``expect``, and anything else is
counted under ``other``. So nobody outside can make a series. docs/operations.md says what to watch.

Gauges that describe the whole deployment (VMs, pool, capacity, what is due) are said alike by every worker: take their ``max``.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Literal, Self, TypeVar, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from ff_cloud.version import VERSION
from ff_core.contract.workspace import VmStatus

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
OTHER = "other"

StatusClass = Literal["2xx", "3xx", "4xx", "5xx", "cut"]
"""Of an answer; ``cut``: the client went away, or we broke off, before there was one."""
AttemptOutcome = Literal["done", "undone", "failed", "waiting", "interrupted"]
"""Of one attempt at a step; ``waiting``: it is not its turn yet, which is no failure."""
OperationOutcome = Literal["done", "undone", "stuck"]
UpstreamKind = Literal["model", "git", "github", "other"]
MissReason = Literal["empty", "dead"]
"""``empty``: no VM of the kind was warm. ``dead``: those that were claimed did not answer."""
RefusalReason = Literal["disk_low", "queue_full", "draining", "other"]
Resource = Literal["vms", "memory_bytes", "disk_bytes", "containers", "pids"]
CheckpointReason = Literal["timer", "turn", "stop", "asked"]
CheckpointOutcome = Literal["saved", "unchanged", "failed"]
HandoffDirection = Literal["SEND", "PULL"]
HandoffOutcome = Literal["COMMITTED", "ABORTED", "FAILED", "EXPIRED"]
Success = Literal["done", "failed"]

_REQUEST_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_CLAIM_S = (0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_STEP_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0)
_OPERATION_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0)
_LAG_S = (0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0)
_CHECKPOINT_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

_Metric = TypeVar("_Metric", Counter, Gauge, Histogram)


def _known(metric: _Metric, *axes: Iterable[str]) -> _Metric:
    """``metric`` with every combination of its labels in place."""
    for combination in product(*axes):
        metric.labels(*combination)
    return metric


def status_class(status: int) -> StatusClass:
    """The class of an HTTP status; 0 stands for no answer."""
    match status // 100:
        case 2:
            return "2xx"
        case 3:
            return "3xx"
        case 4:
            return "4xx"
        case 5:
            return "5xx"
        case _:
            return "cut"


class HttpMetrics:
    """Requests to the API."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("method", "route")
        self._requests = Counter(
            "ff_http_requests", "Requests, by route and class of their status.", (*labels, "status"), registry=registry
        )
        self._duration = Histogram(
            "ff_http_request_duration_seconds", "Until the answer began.", labels, registry=registry, buckets=_REQUEST_S
        )
        # What each route counts with, found once: every request comes by here.
        self._of_route: dict[tuple[str, str], tuple[dict[StatusClass, Counter], Histogram]] = {}
        self.expect(OTHER, OTHER)

    def expect(self, method: str, route: str) -> None:
        """There is a route; its requests are counted under its template."""
        counters = {status: self._requests.labels(method, route, status) for status in get_args(StatusClass)}
        self._of_route[method, route] = (counters, self._duration.labels(method, route))

    def answered(self, method: str, route: str, status: int, duration_s: float | None) -> None:
        """A request ended with ``status`` (0: without an answer); its answer began after ``duration_s``."""
        counters, duration = self._of_route.get((method, route)) or self._of_route[OTHER, OTHER]
        counters[status_class(status)].inc()
        if duration_s is not None:
            duration.observe(duration_s)


class OperationMetrics:
    """Operations as this process carries them out, and what is due in the whole deployment."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._settled = Counter("ff_operations", "Operations that ended here.", ("kind", "outcome"), registry=registry)
        self._duration = Histogram(
            "ff_operation_duration_seconds", "From order to end.", ("kind",), registry=registry, buckets=_OPERATION_S
        )
        self._attempts = Counter(
            "ff_operation_attempts", "Attempts at steps, by how they ended.", ("kind", "step", "outcome"), registry=registry
        )
        self._step_duration = Histogram(
            "ff_operation_step_duration_seconds", "One attempt.", ("kind", "step"), registry=registry, buckets=_STEP_S
        )
        self._running = Gauge("ff_operations_running", "Operations that this process holds.", registry=registry)
        self._due = Gauge("ff_operations_due", "Operations that wait for a worker.", registry=registry)
        self._due_age = Gauge("ff_operations_due_age_seconds", "How long the oldest of those waits.", registry=registry)

    def expect(self, kind: str, steps: Iterable[str]) -> None:
        """This process carries out operations of ``kind``."""
        _known(self._settled, (kind,), get_args(OperationOutcome))
        _known(self._duration, (kind,))
        named = tuple(steps)
        _known(self._attempts, (kind,), named, get_args(AttemptOutcome))
        _known(self._step_duration, (kind,), named)

    def attempted(self, kind: str, step: str, outcome: AttemptOutcome, duration_s: float) -> None:
        """A step was done, undone, failed, has to wait, or was interrupted."""
        self._attempts.labels(kind, step, outcome).inc()
        self._step_duration.labels(kind, step).observe(duration_s)

    def settled(self, kind: str, outcome: OperationOutcome, duration_s: float) -> None:
        """An operation ended."""
        self._settled.labels(kind, outcome).inc()
        self._duration.labels(kind).observe(duration_s)

    def watch_running(self, running: Callable[[], int]) -> None:
        """How many are held is asked at each scrape."""
        self._running.set_function(running)

    def due(self, count: int, oldest_age_s: float) -> None:
        """How many operations wait for a worker, and how long the oldest does."""
        self._due.set(count)
        self._due_age.set(oldest_age_s)


class VmMetrics:
    """VMs: how many, and how well. How they are made, revived, put to sleep, woken and upgraded, and how long that takes, is told
    by the operations of these kinds.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._vms = _known(Gauge("ff_vms", "VMs by status.", ("status",), registry=registry), VmStatus)
        self._health_failures = Counter("ff_vm_health_failures", "Health checks that got no answer.", registry=registry)

    def count(self, counts: Mapping[VmStatus, int]) -> None:
        """How many VMs there are in each status; one that is missing has none."""
        for status in VmStatus:
            self._vms.labels(status).set(counts.get(status, 0))

    def health_failed(self) -> None:
        """A VM did not answer its health check."""
        self._health_failures.inc()


class PoolMetrics:
    """The warm pool. Refills and removals are operations, of the kinds ``warm`` and ``discard``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._target = Gauge("ff_pool_target", "Warm VMs wanted.", registry=registry)
        self._warm = Gauge("ff_pool_warm", "Warm VMs that wait for a claim.", registry=registry)
        self._warming = Gauge("ff_pool_warming", "Warm VMs that are being made.", registry=registry)
        self._oldest = Gauge("ff_pool_oldest_age_seconds", "Since the oldest warm VM was ready.", registry=registry)
        self._hits = Counter("ff_pool_hits", "Claims that found a warm VM.", registry=registry)
        self._misses = _known(
            Counter("ff_pool_misses", "Claims for which a VM had to be made.", ("reason",), registry=registry),
            get_args(MissReason),
        )
        self._claim_duration = Histogram(
            "ff_pool_claim_duration_seconds", "From a claim to its bound daemon.", registry=registry, buckets=_CLAIM_S
        )

    def size(self, *, target: int, warm: int, warming: int, oldest_age_s: float) -> None:
        """How the pool is now; ``oldest_age_s`` is 0 when it is empty."""
        self._target.set(target)
        self._warm.set(warm)
        self._warming.set(warming)
        self._oldest.set(oldest_age_s)

    def hit(self, claim_s: float) -> None:
        """A workspace got a warm VM, claimed and bound in ``claim_s``."""
        self._hits.inc()
        self._claim_duration.observe(claim_s)

    def missed(self, reason: MissReason) -> None:
        """A workspace has to wait for a VM that is made for it."""
        self._misses.labels(reason).inc()


class AdmissionMetrics:
    """What the host has, and who waits for it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._waiting = Gauge("ff_admission_waiting", "Requests that wait for room.", registry=registry)
        self._refused = _known(
            Counter("ff_admission_refused", "Requests refused for want of room.", ("reason",), registry=registry),
            get_args(RefusalReason),
        )
        # One metric per resource: values of one metric have one unit.
        self._capacity = {
            resource: _known(
                Gauge(f"ff_capacity_{resource}", "Of the host: given out, and in all.", ("state",), registry=registry),
                ("used", "total"),
            )
            for resource in get_args(Resource)
        }

    def waiting(self, requests: int) -> None:
        """So many requests wait for room."""
        self._waiting.set(requests)

    def refused(self, reason: str) -> None:
        """A request was refused, for one of the :data:`RefusalReason`."""
        self._refused.labels(reason if reason in get_args(RefusalReason) else OTHER).inc()

    def capacity(self, resource: Resource, *, used: float, total: float) -> None:
        """What of a resource is given out, and what there is in all."""
        self._capacity[resource].labels("used").set(used)
        self._capacity[resource].labels("total").set(total)


class CheckpointMetrics:
    """Checkpoints of VMs outside of the host's container storage."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._made = _known(
            Counter("ff_checkpoints", "Checkpoints, by why and how they ended.", ("reason", "outcome"), registry=registry),
            get_args(CheckpointReason),
            get_args(CheckpointOutcome),
        )
        self._bytes = Counter("ff_checkpoint_bytes", "Stored.", registry=registry)
        self._duration = Histogram("ff_checkpoint_duration_seconds", "Of one.", registry=registry, buckets=_CHECKPOINT_S)
        self._unsaved = Gauge(
            "ff_checkpoint_oldest_unsaved_seconds",
            "Since the last checkpoint, of the changed workspace whose is oldest: the most that losing a volume would cost.",
            registry=registry,
        )
        self._restores = _known(
            Counter("ff_restores", "VMs made anew from a checkpoint.", ("outcome",), registry=registry), get_args(Success)
        )

    def made(self, reason: CheckpointReason, outcome: CheckpointOutcome, *, stored_bytes: int, duration_s: float) -> None:
        """One was saved, was not needed, or failed."""
        self._made.labels(reason, outcome).inc()
        self._bytes.inc(stored_bytes)
        self._duration.observe(duration_s)

    def oldest_unsaved(self, age_s: float) -> None:
        """How far the oldest last checkpoint of a workspace that changed since lies back; 0 when all is saved."""
        self._unsaved.set(age_s)

    def restored(self, outcome: Success) -> None:
        """A VM was made anew from a checkpoint, or could not be."""
        self._restores.labels(outcome).inc()


class GatewayMetrics:
    """The VMs' way out."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels, kinds = ("upstream", "status"), get_args(UpstreamKind)
        self._requests = _known(
            Counter("ff_gateway_requests", "Requests of VMs.", labels, registry=registry), kinds, get_args(StatusClass)
        )
        self._bytes = _known(
            Counter("ff_gateway_bytes", "Bodies passed on.", (*labels, "direction"), registry=registry),
            kinds,
            get_args(StatusClass),
            ("from_vm", "to_vm"),
        )

    def passed(self, upstream: UpstreamKind, status: int, *, from_vm_bytes: int, to_vm_bytes: int) -> None:
        """A request of a VM ended with ``status``; 0 when there was no answer."""
        found = status_class(status)
        self._requests.labels(upstream, found).inc()
        self._bytes.labels(upstream, found, "from_vm").inc(from_vm_bytes)
        self._bytes.labels(upstream, found, "to_vm").inc(to_vm_bytes)


class EventMetrics:
    """Streams of events to clients, and the copies of journals."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._streams = Gauge("ff_event_streams_open", "Streams of events to clients.", registry=registry)
        self._copies = Gauge("ff_copier_copies", "Journals that this process copies.", registry=registry)
        self._events = Counter("ff_copier_events", "Events copied.", registry=registry)
        self._lag = Histogram(
            "ff_copier_lag_seconds", "From an event to its copy in PostgreSQL.", registry=registry, buckets=_LAG_S
        )

    def stream_opened(self) -> None:
        """A client follows a workspace."""
        self._streams.inc()

    def stream_closed(self) -> None:
        """He does so no longer."""
        self._streams.dec()

    def watch_copies(self, copies: Callable[[], int]) -> None:
        """How many journals are copied is asked at each scrape."""
        self._copies.set_function(copies)

    def copied(self, events: int, lag_s: float) -> None:
        """A batch was copied, ``lag_s`` after its oldest event happened."""
        self._events.inc(events)
        self._lag.observe(max(0.0, lag_s))


class HandoffMetrics:
    """Workspaces that move between desktops and this server."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._ended = _known(
            Counter("ff_handoffs", "Handoffs, by direction and how they ended.", ("direction", "outcome"), registry=registry),
            get_args(HandoffDirection),
            get_args(HandoffOutcome),
        )

    def ended(self, direction: HandoffDirection, outcome: HandoffOutcome) -> None:
        """One is over."""
        self._ended.labels(direction, outcome).inc()


class LoopMetrics:
    """The loops of a process; see :mod:`ff_cloud.kit.heartbeats`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._rounds = Counter("ff_loop_rounds", "Rounds, by how they ended.", ("loop", "outcome"), registry=registry)
        self._failing = Gauge("ff_loop_failures_in_a_row", "Failed since one succeeded.", ("loop",), registry=registry)
        self._success = Gauge("ff_loop_last_success_timestamp_seconds", "Of a round.", ("loop",), registry=registry)

    def expect(self, loop: str, now_s: float) -> None:
        """There is a loop; it starts with the benefit of the doubt."""
        _known(self._rounds, (loop,), get_args(Success))
        self._failing.labels(loop)
        self._success.labels(loop).set(now_s)

    def succeeded(self, loop: str, now_s: float) -> None:
        """A round did what it should."""
        self._rounds.labels(loop, "done").inc()
        self._failing.labels(loop).set(0)
        self._success.labels(loop).set(now_s)

    def failed(self, loop: str, in_a_row: int) -> None:
        """A round failed, as the ``in_a_row``-th one."""
        self._rounds.labels(loop, "failed").inc()
        self._failing.labels(loop).set(in_a_row)


class DatabaseMetrics:
    """The pool of connections."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._in_use = Gauge("ff_database_connections_in_use", "Connections taken from the pool.", registry=registry)
        self._max = Gauge("ff_database_connections_max", "Connections the pool may have.", registry=registry)

    def watch(self, in_use: Callable[[], int], connections_max: int) -> None:
        """How many connections are in use is asked at each scrape."""
        self._in_use.set_function(in_use)
        self._max.set(connections_max)


@dataclass(frozen=True, slots=True)
class Metrics:
    """All that one process counts."""

    registry: CollectorRegistry
    http: HttpMetrics
    operations: OperationMetrics
    vms: VmMetrics
    pool: PoolMetrics
    admission: AdmissionMetrics
    checkpoints: CheckpointMetrics
    gateway: GatewayMetrics
    events: EventMetrics
    handoffs: HandoffMetrics
    loops: LoopMetrics
    database: DatabaseMetrics

    @classmethod
    def build(cls) -> Self:
        """New metrics over a registry of their own, with the process's memory, CPU and file descriptors."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # twice the lines, and nobody asks when a counter was made
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        Gauge("ff_build_info", "The version that runs.", ("version",), registry=registry).labels(VERSION).set(1)
        return cls(
            registry=registry,
            http=HttpMetrics(registry),
            operations=OperationMetrics(registry),
            vms=VmMetrics(registry),
            pool=PoolMetrics(registry),
            admission=AdmissionMetrics(registry),
            checkpoints=CheckpointMetrics(registry),
            gateway=GatewayMetrics(registry),
            events=EventMetrics(registry),
            handoffs=HandoffMetrics(registry),
            loops=LoopMetrics(registry),
            database=DatabaseMetrics(registry),
        )

    def exposition(self) -> bytes:
        """All series as text of :data:`CONTENT_TYPE`. Some milliseconds of CPU: call it in a thread."""
        return generate_latest(self.registry)
