"""The process: one of many hosts or the only one, its logging, and how a binary ends.

Many hosts: every process runs the same binary; XLA's collectives are the distributed engine. The processes find each
other from `config.distributed` or from the cluster's own environment.
"""

import importlib.metadata
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import app, logging
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

# EX_TEMPFAIL of sysexits.h, "try again": what a scheduler's requeue rule can test for.
PREEMPTED_EXIT_CODE = 75


# jaxlib 0.10 gives float32 convolutions on a CPU to YNNPACK, which computes each in one thread, and a kernel's gradient
# at three times the work. With this flag Eigen computes them; another jaxlib may not know it, and would stop.
EIGEN_CONVOLUTIONS, EIGEN_FOR = "--xla_cpu_experimental_ynn_fusion_type=individual_dot", "0.10."


NO_THREAD = "can't start new thread"  # CPython's message where memory or a limit of the system has no place for one
SECONDS_TO_END = 10


class NonFiniteError(FloatingPointError):
    """Training met a NaN or an infinity; the message names the metric and the window of steps."""


class Preempted(SystemExit):
    """The run was asked to stop, saved its state and ends with PREEMPTED_EXIT_CODE."""

    def __init__(self, step: int):
        super().__init__(PREEMPTED_EXIT_CODE)
        self.step = step


# What a user can mend; anything else is a defect of the program and keeps its traceback.
USER_ERRORS = (ValueError, OSError, ImportError, MemoryError, FloatingPointError)


def run_binary(main: Callable[[Sequence[str]], None], **app_arguments: Any) -> None:
    """`absl.app.run`, but an error that a user can mend is one line on stderr (its traceback: --verbosity=1)."""

    def guarded(argv: Sequence[str]) -> None:
        quiet_logging()
        hook, sys.unraisablehook = sys.unraisablehook, _log_unraisable
        try:
            main(argv)
        except (*USER_ERRORS, RuntimeError) as error:
            if not (message := for_user(error)):
                raise
            logging.debug("traceback", exc_info=True)
            if NO_THREAD in message:
                # What waits for a thread that never started may wait for ever, at the interpreter's end too.
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(SECONDS_TO_END)
            fail(f"{message} (--verbosity=1 shows where)")
        finally:
            sys.unraisablehook = hook

    if importlib.metadata.version("jaxlib").startswith(EIGEN_FOR):
        add_xla_flag(EIGEN_CONVOLUTIONS)
    app.run(guarded, **app_arguments)


def for_user(error: Exception) -> str:
    """What an error that a user can mend says; "" for any other."""
    if isinstance(error, MemoryError) and not str(error):
        return "there is no memory left: give the process more of it, or use fewer seeds, smaller batches or less data"
    if isinstance(error, USER_ERRORS):
        return str(error) or type(error).__name__
    if str(error) == NO_THREAD:
        return f"{error}: give the process more memory, or more threads (ulimit -u)"
    if "RESOURCE_EXHAUSTED" in str(error):
        return (
            f"the devices have no memory left ({str(error).splitlines()[0]}): use fewer seeds, smaller batches or less "
            "data, or more devices with an fsdp rule"
        )
    return ""


def fail(message: str) -> None:
    """Ends the process with one line on stderr."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr, flush=True)
    sys.exit(1)


def quiet_logging() -> None:
    """Sends logs to stderr; drops the chatter of libraries below a warning, and the tracebacks of their errors, which
    are raised here too (--verbosity=1 shows them)."""
    logging.use_absl_handler()
    logging.get_absl_handler().addFilter(_worth_showing)


def _log_unraisable(raised: Any) -> None:
    """What a library's callback raised where nobody can catch it, such as after an error that ended the loop."""
    logging.debug("%s in %r", raised.exc_value or raised.exc_type, raised.object)


def _worth_showing(record: Any) -> bool:
    if f"{os.sep}site-packages{os.sep}" not in record.pathname and record.name != "asyncio":
        return True
    if logging.get_verbosity() < logging.DEBUG:
        record.exc_info = record.exc_text = None
    return record.levelno >= logging.converter.ABSL_TO_STANDARD[logging.WARNING]


def add_xla_flag(flag: str) -> None:
    """Adds a flag to those of XLA, which it reads when it first touches a device; a person's own setting stays."""
    flags = os.environ.get("XLA_FLAGS", "")
    if flag.partition("=")[0] not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()


def start_process(distributed: ConfigDict, *, deterministic: bool) -> None:
    """Joins the other processes, if there are any; call once, before anything touches a device.

    Args:
      distributed: coordinator_address ("host:port"), num_processes and process_id; left empty they come from the
        cluster's environment (SLURM, Open MPI, GKE, TPU pods) where it announces several processes.
      deterministic: makes a GPU bitwise reproducible, at some cost in speed. CPUs and TPUs are anyway.
    """
    if deterministic:
        add_xla_flag("--xla_gpu_deterministic_ops=true")
    if distributed.coordinator_address:
        if distributed.num_processes < 1 or not 0 <= distributed.process_id < distributed.num_processes:
            raise ValueError(
                f"config.distributed: process_id={distributed.process_id} of "
                f"num_processes={distributed.num_processes}: give both, 0 <= process_id < num_processes"
            )
        _initialize(distributed.coordinator_address, distributed.num_processes, distributed.process_id)
    elif _cluster_processes() > 1:
        _initialize()


def _initialize(*arguments: Any) -> None:
    """jax.distributed.initialize, so that collectives on CPUs run one after another, those of two programs and those
    inside one: side by side they could run in another order on each process, which then take each other's data.
    Accelerators have queues."""
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    if importlib.metadata.version("jaxlib").startswith("0.10."):  # another may not know the flag, and would stop
        add_xla_flag("--xla_cpu_enable_concurrency_optimized_scheduler=false")
    jax.distributed.initialize(*arguments)
    if jax.default_backend() == "cpu":
        # A program that a CPU reads from the cache has lost the order of its collectives (seen with jaxlib 0.10).
        jax.config.update("jax_enable_compilation_cache", False)


def _cluster_processes() -> int:
    """How many processes the cluster's environment announces."""
    for name in ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"):
        if os.environ.get(name, "").isdigit():
            # An interactive shell inside an allocation has SLURM_NTASKS without being one of its tasks.
            if name == "SLURM_NTASKS" and "SLURM_PROCID" not in os.environ:
                continue
            return int(os.environ[name])
    return len([host for host in os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",") if host])


def is_main_process() -> bool:
    """Whether this is the process that writes logs and metrics."""
    return jax.process_index() == 0


def sync_processes(name: str) -> None:
    """Waits until every process is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def from_main_process(compute: Callable[[], Any]) -> Any:
    """Computes a JSON-able value on the main process alone and gives it to all, e.g. the returns of host roll-outs.

    An error of the computation is raised on every process: none is left waiting.
    """
    if jax.process_count() == 1:
        return compute()
    encoded, error = _encoded(compute) if is_main_process() else (b"", None)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(encoded))))
    buffer = np.frombuffer(encoded.ljust(length, b" "), np.uint8)[:length]
    return _decoded(multihost_utils.broadcast_one_to_all(buffer), "the main process", error)


def from_every_process(compute: Callable[[], Any]) -> list[Any]:
    """The JSON-able values that all processes compute, in their order, e.g. each its share of a batch's rewards.

    An error of one computation is raised on every process: none is left waiting.
    """
    if jax.process_count() == 1:
        return [compute()]
    encoded, error = _encoded(compute)
    longest = int(np.max(multihost_utils.process_allgather(np.int32(len(encoded)))))
    buffers = multihost_utils.process_allgather(np.frombuffer(encoded.ljust(longest, b" "), np.uint8))
    return [_decoded(buffer, f"process {rank}", error) for rank, buffer in enumerate(buffers)]


def _encoded(compute: Callable[[], Any]) -> tuple[bytes, Exception | None]:
    """What `compute` gives or raises, for the other processes, and the error for this one."""
    try:
        return json.dumps({"value": compute()}).encode(), None
    except Exception as error:  # noqa: BLE001: it is raised again, here and everywhere
        return json.dumps({"error": f"{type(error).__name__}: {error}"}).encode(), error


def _decoded(buffer: np.ndarray, name: str, error: Exception | None) -> Any:
    answer = json.loads(np.asarray(buffer).tobytes())
    if "error" in answer:
        raise RuntimeError(f"{name} failed: {answer['error']}") from error
    return answer["value"]


def on_any_process(flag: bool) -> bool:
    """Whether `flag` is set on any process; the same answer on all of them."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


class StopSignal:
    """Turns SIGTERM and Ctrl-C into a flag that the loop reads between two chunks; a second Ctrl-C ends at once.

    Outside the main thread (a notebook's worker, a test) signals cannot be caught and the flag stays down.
    """

    def __enter__(self) -> "StopSignal":
        self._raised = False
        self._previous = {}
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                # A background job of a shell ignores Ctrl-C, and goes on ignoring it.
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._catch)
        except ValueError:
            pass
        return self

    def _catch(self, number: int, frame: Any) -> None:
        del frame
        self._raised = True
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, self._previous[signal.SIGINT])

    def __exit__(self, *exc: Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def raised(self) -> bool:
        """Whether any process was told to stop; the same answer on all of them."""
        return on_any_process(self._raised)
