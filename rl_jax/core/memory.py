"""Whether a run fits: bytes a device needs against bytes it has, told before anything is uploaded."""

import jax
import psutil
from absl import logging

from rl_jax.core.mesh import bytes_per_device
from rl_jax.core.program import PyTree


class DeviceMemoryError(MemoryError):
    """State, resident and feed cannot fit; the message has the sizes and what to change."""


def free_bytes(device: jax.Device) -> int:
    """Bytes that this device can still give."""
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    # A CPU's devices share the host's memory.
    return psutil.virtual_memory().available // max(1, jax.local_device_count())


def check_fits(state: PyTree, resident: PyTree, feed_bytes: int = 0) -> None:
    """Logs the estimate; raises DeviceMemoryError where these alone exceed a device.

    Args:
      state, resident: trees of ShapeDtypeStructs with shardings.
      feed_bytes: what the feed declares that it keeps on each device.
    """
    device = jax.local_devices()[0]
    needs = {"state": bytes_per_device(state), "resident": bytes_per_device(resident), "feed": feed_bytes}
    free = free_bytes(device)
    logging.info(
        "memory a device: %s, free %s", ", ".join(f"{name} {_size(need)}" for name, need in needs.items()), _size(free)
    )
    if sum(needs.values()) > free:
        listed = ", ".join(f"{name} ({_size(need)})" for name, need in needs.items() if need)
        raise DeviceMemoryError(
            f"{listed} do not fit the {_size(free)} free on {device.device_kind}: use fewer seeds "
            "(--config.num_seeds), a smaller data set, smaller networks, or more devices with an fsdp rule in "
            "config.sharding_rules or config.resident_rules"
        )


def check_compiled(compiled: jax.stages.Compiled) -> None:
    """Logs what the compiled step needs beside its arguments; raises DeviceMemoryError where that does not fit."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return
    device = jax.local_devices()[0]
    need, free = analysis.temp_size_in_bytes, free_bytes(device)
    logging.info("memory a device: %s for the step's temporaries", _size(need))
    if need > free:
        raise DeviceMemoryError(
            f"the step needs {_size(need)} of temporaries and {_size(free)} are free on {device.device_kind}: "
            "use a smaller batch (--config.batch_size), fewer seeds, or more devices"
        )


def _size(count: int) -> str:
    number = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.3g} {unit}" if unit != "B" else f"{count} B"
        number /= 1024
    return f"{number:.3g} TiB"
