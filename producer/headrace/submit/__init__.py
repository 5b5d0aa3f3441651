"""From the arguments of a submit to an accepted job."""
