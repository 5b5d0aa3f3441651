"""How far the values of jobs have moved from those a version was packaged with."""
