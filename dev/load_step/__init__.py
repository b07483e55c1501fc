"""`python -m load_step`: the load of a detector trebles on the local cluster, and is followed."""
