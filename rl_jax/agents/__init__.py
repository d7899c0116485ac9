"""Control algorithms, one file each: networks -> losses -> update -> act -> default config."""
