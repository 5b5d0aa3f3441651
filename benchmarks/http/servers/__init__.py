"""The servers beside the gateway, each a program: `python -m benchmarks.http.servers.NAME PORT FOLDER`.

fastapi_in_process    what the tutorials show: a route of FastAPI that calls the model
fixed_answer          the framework of the gateway, which reads the body and always answers the same
"""
