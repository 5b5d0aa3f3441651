"""One file for each peer: how its worker is started, how jobs are submitted, how results are collected."""
