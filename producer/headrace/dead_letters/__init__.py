"""Find dead letters, and replay, purge or export them."""
