"""Rollout: move the jobs of a model from one version to another.

promotion       move an alias after all checks; roll back
alias_moves     the steps of both that need no store; the state of a version at the workers
opening         open what moves aliases: Redis, the store, the person's name
publication     publish contracts from the store without a worker
canary          judge canaries, and end those that fail or are slow
shadow          count versions while one is tried, and run shadows
version_stats   the statistics of a version in Redis
"""
