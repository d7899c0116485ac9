"""Other people's libraries as variants of the benchmark."""
