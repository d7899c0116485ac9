"""SINDy-RL: sparse equations as models and policies."""
