"""The ways to predict a folder of tables without a queue, each a program: `python -m benchmarks.bulk.ways.NAME`.

They import neither Headrace nor each other's libraries, because Dask and Ray run in environments of their own.
"""
