"""Facts about models that producers and workers share in Redis: contracts, aliases and loaded versions.

- `contract.py`: the types of a contract.
- `validation.py`: the check of instances against a contract.
- `datetimes.py`: the texts of datetimes and dates.
- `instance_types.py`: the msgspec types that make this check quick.
- `contract_diff.py`: the changes from one contract to another, and which of them break producers.
- `published.py`: contracts in Redis, and a cache of them.
- `aliases.py`: names for versions, their changes, and the version a job runs on.
- `pauses.py`: the models of which workers claim no jobs.
- `workers.py`: the versions that workers have loaded or refuse.
"""
