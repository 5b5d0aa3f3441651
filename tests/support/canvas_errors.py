"""An error of a client's tasks. No Headrace worker imports this module."""

from __future__ import annotations


class OwnError(Exception):
    """An error whose class no Headrace worker has."""
