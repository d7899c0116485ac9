"""What the machine does while a run trains: the processors, the memory and the devices of this process."""

import contextlib
import time

import jax
import psutil

GIGABYTE = 1e9


class SystemMonitor:
    """Reads the load that this process and its child processes, such as environment workers, put on the machine."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._time = time.perf_counter()
        self._seconds = self._cpu_and_memory()[0]

    def read(self) -> dict[str, float]:
        """The load since the last call.

        Returns:
          system/cpu_percent: mean over that time; 100 is one core busy all along.
          system/memory_gb: resident now, in 1e9 bytes. Pages that a process shares with its children count in each.
          system/device_memory_gb: in use now on this process's fullest device, in 1e9 bytes; absent where the device
            does not report it, as a CPU.
        """
        now = time.perf_counter()
        seconds, memory = self._cpu_and_memory()
        # A child that ended takes its seconds along: what it did since the last call is lost, the others' is not.
        busy = sum(spent - self._seconds.get(pid, 0.0) for pid, spent in seconds.items())
        metrics = {
            "system/cpu_percent": 100.0 * busy / max(now - self._time, 1e-9),
            "system/memory_gb": memory / GIGABYTE,
        }
        self._time, self._seconds = now, seconds
        in_use = [stats["bytes_in_use"] for device in jax.local_devices() if (stats := device.memory_stats())]
        return metrics | ({"system/device_memory_gb": max(in_use) / GIGABYTE} if in_use else {})

    def _cpu_and_memory(self) -> tuple[dict[int, float], int]:
        """The seconds that each process has computed so far, and the bytes resident in all of them."""
        seconds, memory = {}, 0
        for process in [self._process, *self._process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):  # it ended meanwhile
                times, resident = process.cpu_times(), process.memory_info().rss
                seconds[process.pid] = times.user + times.system
                memory += resident
        return seconds, memory
