"""Electroencephalograms: a reader of EDF+ files, motor-imagery trials of one person, and their spatial filters."""
