"""Headrace on this machine, for demonstration, development and tests.

embedded_redis  a temporary Redis server
stack           workers, Flower and a gateway as child processes
ports           free ports of loopback
demo_models     demonstration models, trained within seconds
first_commands  commands that work, for a model of a store
http_example    a prediction over HTTP
job_stream      the jobs of a worker, from its log
parent_death    child processes that end with this process
"""
