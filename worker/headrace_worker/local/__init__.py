"""A whole Headrace on one machine: Redis, models, worker and Flower as child processes."""
