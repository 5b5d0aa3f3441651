"""Several machines, as network namespaces of this one: slow links, a link half open, a machine gone.

Commands:

    __main__    `python -m tests.machines`: the measurements in full, their figures as text

What they use:

    machine     a machine: a network namespace with a thread in it, and the links between two
    site        Redis, workers and a client on machines of their own, and the network between them
    load        the jobs of a client, and the check of their outcomes
    measure     the measurements of a site
"""
