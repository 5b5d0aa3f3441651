"""Facts about models that producers and workers share in Redis: contracts, aliases and loaded versions.

- `contract.py`: the types of a contract.
- `validation.py`: the check of instances against a contract.
- `instance_problems.py`: what does not fit, as a sentence and as a JSON pointer.
- `datetimes.py`: the texts of datetimes and dates.
- `instance_types.py`: the msgspec types that make this check quick.
- `typical.py`: an instance with typical values, for documentation.
- `contract_diff.py`: the changes from one contract to another, and which of them break producers.
- `published.py`: contracts in Redis, and a cache of them.
- `aliases.py`: names for versions, their changes, and the version a job runs on.
- `pauses.py`: the models of which workers claim no jobs.
- `callers.py`, `api_keys.py`: the callers of the HTTP gateway, their keys and limits.
- `rate.py`: the rate of a caller, counted for all gateways together.
- `workers.py`: the versions that workers have loaded or refuse.
"""
