"""The pages for people: `/docs` lists the models, with a `curl` for each, and `/docs/problems` explains errors.

They are static, hold nothing of the installation, and need no key. The browser asks `/openapi.json` for the
models, with the key that the reader gives it.
"""
