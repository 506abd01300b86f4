"""Short scripts to start from: ``python -m examples.<name>``. See examples/README.md."""
