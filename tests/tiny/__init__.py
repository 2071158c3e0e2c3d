"""Tiny random weights in the published formats, one module per row of the manifest: `make(folder)` writes the row's files."""
