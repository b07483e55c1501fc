"""`make pull-walk`: the demo as most people run it, everything pulled from a registry of ours."""
