"""Headrace and its peers side by side: `make bench`. docs/benchmarks.md says what is measured and how."""
