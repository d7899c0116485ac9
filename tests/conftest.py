"""What every test session needs before jax is imported: the platform, eight virtual CPU devices, a quick compiler."""

import os

# A test that asks for nothing runs on device 0 and sees no difference; the sharding tests use all eight.
_DEVICES = "--xla_force_host_platform_device_count=8"
# Most of the tests' time is compiling small networks, which LLVM does a fifth faster so. The binaries that tests start
# as a person does are compiled as a person's are.
_QUICK = "--xla_backend_optimization_level=1"

os.environ["JAX_PLATFORMS"] = os.environ.get("RL_JAX_TEST_PLATFORM", "cpu")
os.environ["XLA_FLAGS"] = f"{_QUICK} {os.environ.get('XLA_FLAGS', '')} {_DEVICES}"
