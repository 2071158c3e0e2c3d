"""Longer network and signal code that analyzers call. Each file names its source at the top."""
