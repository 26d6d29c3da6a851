"""I3TASKS itself: all settings."""

# No `from __future__ import annotations`: a dataclass searches each annotation that is text, at every start.

from dataclasses import field
from datetime import timedelta

from ..core.frozen import dataclass
from ..core.text import MAXIMUM_BYTES
from .base import Checked
from .queues import DatabaseQueue, PullQueue, PushQueue, Schedule
from .retention import Retention
from .rules import check

_DEFAULT_QUEUE = PullQueue("default", "worker")


@dataclass(frozen=True)
class I3TasksSettings(Checked):
    """All settings of i3tasks. Times are in seconds unless the name says otherwise."""

    namespace: str = "i3tasks"
    """First part of every topic's and subscription's name. Give each project and environment its own."""
    default_queue: PushQueue | PullQueue | DatabaseQueue = _DEFAULT_QUEUE
    """The queue of tasks without a `queue_name`."""
    other_queues: tuple[PushQueue | PullQueue | DatabaseQueue, ...] = ()
    schedules: tuple[Schedule, ...] = ()
    task_modules: tuple[str, ...] = ()
    """Modules with tasks beside the `tasks` module of each installed app, which is always imported."""
    force_sync: bool = False
    """True: `delay` runs the task at once in the calling thread, without Pub/Sub. For tests."""

    default_max_retries: int = 3
    """Further tries after a failed first one, unless the task says otherwise."""
    task_retry_backoff_base_seconds: float | None = 2
    """Wait before the first retry; doubled for each further one. None or 0: no wait."""
    task_retry_backoff_max_seconds: float = 60
    default_timeout_seconds: float | None = None
    """How long a body may run, unless the task says otherwise. None: no limit."""

    retry_minimum_backoff_seconds: int | None = 10
    """Pub/Sub's wait before it delivers a refused message again. None for both: Pub/Sub's own default."""
    retry_maximum_backoff_seconds: int | None = 600
    ack_deadline_seconds: int = 60
    """Set on subscriptions: how long Pub/Sub waits for an answer before it delivers again, 10 to 600."""
    message_retention_seconds: int = 7 * 86_400
    """Set on subscriptions: how long Pub/Sub keeps an undelivered message, 600 to 2,678,400 (31 days)."""
    dead_letter: bool = True
    """Give each subscription a dead-letter topic for messages that could not be read."""
    dead_letter_max_attempts: int = 20
    """Deliveries before a message goes there, 5 to 100."""
    run_queue_create_command_on_startup: bool = True
    """Make missing topics and subscriptions when a worker starts, and at a web process's first publish."""
    register_client_teardown: bool = True
    """When the process ends, wait for publishes under way, for at most `flush_seconds`."""
    flush_seconds: float = 5

    maximum_eta: timedelta | None = None
    """How far ahead a call may be deferred. None: no limit."""

    maximum_payload_bytes: int = MAXIMUM_BYTES
    """The largest arguments of a call, and the largest result, in bytes as JSON."""

    concurrency: int = 100
    """Tries a worker runs at the same time, unless `--concurrency` says otherwise."""
    threads: int = 16
    """How many of them may be sync functions, each in a thread, unless `--threads` says otherwise."""
    database_lanes: int = 16
    """Threads (and database connections) that coroutine tasks share for their ORM calls."""
    drain_seconds: float = 25
    """How long a worker that is asked to stop waits for running tries. Kubernetes kills after 30."""
    process_grace_seconds: float = 3
    """How long a body with `isolation="process"` may clean up once a timeout or a cancellation has raised
    TaskCancelled in it, before its process is killed. 0: it is killed at once."""
    lease_seconds: float = 30
    """A running try whose worker has not renewed its lease for so long counts as lost."""
    heartbeat_seconds: float = 10
    """How often a worker renews its leases. At most half of `lease_seconds`."""
    publish_grace_seconds: float = 60
    """A publish that was not confirmed for so long is repeated."""
    lost_after_seconds: float = 3600
    """A try that no worker has claimed for so long after its publish is published again; doubled each time, at most a
    day."""
    fallback_seconds: float | None = 15
    """A worker that has room and has heard nothing for so long takes tries from the database that were published as
    long ago; while it knows that Pub/Sub is away, at once. None: it waits for messages."""

    priority_aging_seconds: float | None = 600
    """A waiting try gains a point of priority for each so many seconds, so that none waits for ever. None: it gains
    none, and waits while any of a higher priority does."""

    error_message_characters: int = 10_000
    """How much of an error's text a try keeps. A longer text loses its middle."""
    error_traceback_characters: int = 20_000
    """The same for its traceback."""

    endpoint: str | None = None
    """The URL below which the project includes `i3tasks.urls`: push and beat URLs are made from it."""
    service_account: str | None = None
    """E-mail of the service account whose OIDC token push and beat requests carry. None: they are refused, except on
    an emulator, and where the queue, `beat_token` or `allow_unverified` says otherwise."""
    audience: str | None = None
    """The audience that the token names. None: the URL that is called."""
    beat_token: str | None = field(default=None, repr=False)
    """A secret that opens the beat endpoint too, sent as `Authorization: Bearer <beat_token>`."""
    certificates_url: str | None = None
    """The URL of the certificates that tokens are checked with. None: Google's, or the embedded emulator's own."""
    cloud_run_verifies: bool = False
    """True: the Cloud Run service requires authentication, so Cloud Run has checked a token's signature, and removed
    it, before the request arrives; only the token's claims are checked then."""
    allow_unverified: bool = False
    """True: accept push and beat requests without verifying their sender. Only for a network closed to others."""
    health_token: str | None = field(default=None, repr=False)
    """Token that the health endpoint asks for. None: it is open."""
    status_token: str | None = field(default=None, repr=False)
    """Token for the status endpoint; falls back to `health_token`."""
    propagate_headers: tuple[str, ...] = ()
    """Request headers that travel with the calls of a request; needs the middleware of `contrib.propagation`."""
    propagate_context: tuple[str, ...] = ()
    """Names of structlog's context (`contextvars`) that travel with calls."""
    metrics: bool = False
    """True: count for Prometheus what happens in each process. Needs the extra `i3tasks[prometheus]`."""
    metrics_token: str | None = field(default=None, repr=False)
    """Token for the metrics endpoint and the port of `--metrics-port`; falls back to `health_token`."""
    status_shows_values: bool = False
    """True: the status endpoint shows arguments and results also where no token guards it."""
    autoclean_older_than: timedelta | None = None
    """`i3tasks clean` deletes finished executions that were created longer ago than this. None: it deletes none."""
    autoclean_failed_older_than: timedelta | None = None
    """The same for executions that failed. None: like the others."""
    release: str | None = None
    """The deployed release, such as a version or a commit: the board marks its changes. None or "": it marks nothing.
    Give all processes of a deployment the same."""
    retention: Retention | timedelta | None = None
    """`i3tasks clean` deletes executions so long after their end; in place of the two above, which count from the
    creation. A queue may have its own."""
    sentry: bool = False
    """True: report tries and their errors to Sentry, whose SDK the project has set up (`sentry_sdk.init`)."""
    sentry_crons: bool = False
    """True: make each schedule a cron monitor of Sentry, too."""
    log_arguments: bool = False
    """True: events of a run have the call's arguments, but for those that the task declares `sensitive`."""
    log_format: str = "auto"
    """How commands write their log lines, where the project has no LOGGING for them: "text", "json" in Cloud Logging's
    shape, or "auto": text on a terminal, JSON elsewhere."""
    health_window_minutes: int = 60
    health_stuck_minutes: int = 15
    health_failed_threshold: int = 5
    health_pending_age_seconds_threshold: int = 300

    def __post_init__(self) -> None:
        check(self)

    @property
    def queues(self) -> tuple[PushQueue | PullQueue | DatabaseQueue, ...]:
        """All queues, the default one first."""
        return (self.default_queue, *self.other_queues)
