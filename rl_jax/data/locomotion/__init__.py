"""The `locomotion` data sets: Hopper, HalfCheetah and Walker2d, rolled out from small embedded behaviour policies."""
