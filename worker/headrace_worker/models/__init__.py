"""The model versions in a process's memory: loaded, verified, served and dropped.

loader         load a version: verify its bytes and run its example
child_process  run a step in a child process first
version        `load_version`: a version for a program without a queue
registry       the loaded versions, and the version each job runs on
sync           load the versions that aliases name, and report them in Redis
"""
