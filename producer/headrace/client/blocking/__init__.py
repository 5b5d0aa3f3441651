"""The client for blocking code; `headrace.client` lists its files."""
