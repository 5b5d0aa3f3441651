"""Drift: how far the values of jobs have moved from the profile their version was packaged with.

psi         count rows by cell in Redis, and compare the counts with the profile
recorder    count a sample of each claim, in the pool processes
collector   show the drift of the versions that serve as a metric, in the main process
"""
