"""Run tracking after Open RL Benchmark: any tree of runs read, filtered, compared and drawn."""
