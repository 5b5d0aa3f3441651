"""Contracts, aliases and loaded versions of models: what producers and workers share through Redis."""
