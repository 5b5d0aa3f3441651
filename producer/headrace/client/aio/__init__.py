"""The client for asyncio; `headrace.client` lists its files."""
