"""Tasks and their options, and what a call of one comes to with the options that its row carries."""

# No `from __future__ import annotations`: a dataclass searches each annotation that is text, at every start.

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any, Literal

from ..conf import get_config
from ..core import binding
from ..core.frozen import Frozen, dataclass

if TYPE_CHECKING:
    from ..core.concealing import Conceal
    from ..core.retry import RetryPolicy
    from ..core.steps import Step

Isolation = Literal["thread", "process"]

METADATA = "task_metadata"
"""The parameter that a body declared with `bind=True` has."""


@dataclass(frozen=True)
class TaskOptions(Frozen):
    """The options of `@task(...)`. None always means: as I3TASKS says."""

    bind: bool = False
    queue_name: str | None = None
    max_retries: int | None = None
    retry: "RetryPolicy | None" = None
    run_once: bool = False  # wins over a call's own retries
    unique: bool = False
    timeout: float | None = None  # seconds
    priority: int = 0
    isolation: Isolation = "thread"
    sensitive: tuple[str, ...] = ()
    cron: str | None = None
    project_id: str | None = None
    topic_name: str | None = None
    subscription_name: str | None = None
    on_success: "tuple[Step, ...]" = ()
    on_failure: "Step | None" = None


@dataclass(frozen=True)
class TaskSpec(Frozen):
    """One registered task."""

    module_name: str
    func_name: str
    function: Callable[..., Any]
    options: TaskOptions = field(default_factory=TaskOptions)
    is_coroutine: bool = field(init=False, compare=False)
    """Whether the function is an `async def`. Kept, because `inspect` takes long to tell."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_coroutine", inspect.iscoroutinefunction(self.function))

    @property
    def path(self) -> str:
        """`module.function`, as logs and errors name the task."""
        return f"{self.module_name}.{self.func_name}"

    def queue_name(self, asked: str | None = None) -> str | None:
        """The queue of a call: `asked`, else the task's own, else the default one. Raises UnknownQueueError.

        None: the call goes to the task's own topic (`topic_name`) and to no queue.
        """
        name = asked or self.options.queue_name
        return None if self.options.topic_name and not name else get_config().queue(name).name

    def argument_problem(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """Why the task does not take these arguments, in a sentence; "" if it does."""
        found = binding.problem(self.function, args, kwargs, self.given)
        return f"{self.path} does not take these arguments: {found}." if found else ""

    def concealed(self, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """The stored arguments of a call as people may see them."""
        from ..core.concealing import concealed  # late: a process that only defines tasks shows no calls

        return concealed(self.function, self.options.sensitive, args, kwargs)

    def concealer(self, args: Any, kwargs: Any) -> "Conceal | None":
        """A function that hides the call's sensitive arguments in a text; None for a task without such."""
        from ..core.concealing import concealer

        return concealer(self.function, self.options.sensitive, args, kwargs)

    @property
    def given(self) -> tuple[str, ...]:
        """The parameters that the worker fills."""
        return (METADATA,) if self.options.bind else ()

    @property
    def metadata_name(self) -> str:
        """The keyword by which the worker gives the body its metadata, with `bind`."""
        return METADATA

    @property
    def gets_metadata_first(self) -> bool:
        """Whether `task_metadata` is the first parameter of the function that was decorated."""
        first = next(iter(inspect.signature(inspect.unwrap(self.function)).parameters), None)
        return self.options.bind and first == METADATA

    def policy(self, overrides: Any) -> "RetryPolicy":
        """The retry policy of a call of this task; `overrides` are the options that its row carries."""
        of_call = _stored_policy(_options(overrides).get("retry"))
        base = of_call or self.options.retry or default_policy()
        # A call's policy is complete: the task's own max_retries does not count then.
        max_retries = _override(overrides, "max_retries", None if of_call else self.options.max_retries)
        if self.options.run_once:
            max_retries = 0
        return base if max_retries is None else replace(base, max_retries=max_retries)

    def timeout(self, overrides: Any) -> float | None:
        """How many seconds the body may run."""
        timeout = _override(overrides, "timeout", self.options.timeout)
        return get_config().settings.default_timeout_seconds if timeout is None else timeout


def default_policy() -> "RetryPolicy":
    """The retry policy that I3TASKS describes."""
    from ..core.retry import RetryPolicy  # late: a process that only defines tasks does not need it

    settings = get_config().settings
    return RetryPolicy(
        max_retries=settings.default_max_retries,
        base_seconds=settings.task_retry_backoff_base_seconds,
        max_seconds=settings.task_retry_backoff_max_seconds,
    )


def _options(stored: Any) -> dict[str, Any]:
    """The options that a row holds; none if it holds something else, which must not stop a worker."""
    return stored if isinstance(stored, dict) else {}


def _override(overrides: Any, name: str, otherwise: Any) -> Any:
    """The number that a row holds under `name`; `otherwise` if it holds no valid one."""
    value = _options(overrides).get(name)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0
    return value if is_number else otherwise


def _stored_policy(stored: Any) -> "RetryPolicy | None":
    """The retry policy that a call's row holds; None if it holds no valid one."""
    from ..core.retry import RetryPolicy

    try:
        return RetryPolicy.from_json(stored) if stored else None
    except (TypeError, ValueError, AttributeError):
        return None
