"""The suites of the benchmark; `suite(...)` of each measures it and returns the figures of the JSON line."""
