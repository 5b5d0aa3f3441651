"""Finds dead letters, and replays, purges or exports them.

The operations read a few hundred letters at a time, so that memory does not grow with their number.

    filter.py       which letters: by id, model, reason, error and age
    search.py       cursors that read the letters of a filter, with or without their messages
    groups.py       counts letters that differ only in numbers and ids as one group
    replay.py       prepares the message of a letter to be run again
    bulk.py         replays or purges the letters of a filter in steps
    scripts.py      the Lua scripts, each with a function that builds its command
    operations.py   the operations of `client.dead_letters`
"""
