"""The benchmark: rates of our programs beside simpler and other people's loops."""
