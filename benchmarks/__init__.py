"""Benchmarks. Each script writes one JSON a run into benchmarks/results/; `table` turns them into the README's table."""
