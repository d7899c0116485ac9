"""Data sets: transition and episode sets, readers, a writer, checks, an array cache and samplers on the device."""
