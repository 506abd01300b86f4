"""Measurements that anyone can rerun: ``python -m benchmarks.<name>``. See docs/benchmarks.md."""
