"""Experts of several levels, which act, label and are rolled out; `SOURCE.md` says where each comes from."""
