"""Preference-based RL made efficient by randomisation: PR-LSVI and PbTS."""
