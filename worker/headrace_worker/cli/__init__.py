"""Commands that headrace-worker adds to `headrace`, by the entry points in its pyproject.toml."""
