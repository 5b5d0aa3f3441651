"""A claim's way through a pool process, a file a step."""
