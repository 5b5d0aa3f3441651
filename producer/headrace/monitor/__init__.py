"""Rates, workers and depths at this moment, for `headrace top` and Flower."""
