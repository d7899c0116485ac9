"""What every test session needs before jax is imported: the platform, and eight virtual CPU devices."""

import os

# A test that asks for nothing runs on device 0 and sees no difference; the sharding tests use all eight.
_DEVICES = "--xla_force_host_platform_device_count=8"

os.environ["JAX_PLATFORMS"] = os.environ.get("RL_JAX_TEST_PLATFORM", "cpu")
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_DEVICES}".strip()
