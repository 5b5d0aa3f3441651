"""Headrace on this machine, for demonstration, development and tests.

embedded_redis  a temporary Redis server
stack           workers and Flower as child processes
demo_models     demonstration models, trained within seconds
child           child processes that end with this process
"""
