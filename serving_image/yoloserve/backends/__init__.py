"""The runtimes a network can run on, one file each, behind `base.Backend`."""
