"""The `locomotion-2` data sets: Hopper, HalfCheetah and Walker2d, rolled out from small embedded behaviour policies."""
