"""Whether a run fits: bytes a device needs against bytes it has, told before anything is uploaded."""

import jax
import psutil
from absl import logging

from rl_jax.core.mesh import bytes_per_device
from rl_jax.core.program import PyTree


class DeviceMemoryError(MemoryError):
    """State and data cannot fit; the message has the sizes and what to change."""


def free_bytes(device: jax.Device) -> int:
    """Bytes that this device can still give."""
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    # A CPU's devices share the host's memory.
    return psutil.virtual_memory().available // max(1, jax.local_device_count())


def check_fits(state: PyTree, data: PyTree) -> None:
    """Logs the estimate; raises DeviceMemoryError where state and data alone exceed a device.

    Args:
      state: tree of ShapeDtypeStructs with shardings.
      data: tree of host or device arrays (replicated).
    """
    device = jax.local_devices()[0]
    need_state, need_data, free = bytes_per_device(state), bytes_per_device(data), free_bytes(device)
    logging.info(
        "memory a device: state %s, data %s, free %s", _size(need_state), _size(need_data), _size(free)
    )
    if need_state + need_data > free:
        raise DeviceMemoryError(
            f"state ({_size(need_state)}) and data ({_size(need_data)}) do not fit the {_size(free)} free on "
            f"{device.device_kind}: use fewer seeds (--config.num_seeds), a smaller data set, smaller networks, "
            "or more devices with an fsdp sharding rule"
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
