"""RLHS: feedback after the consequences of an answer were simulated."""
