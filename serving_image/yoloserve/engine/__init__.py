"""The network at work: a runtime that is chosen, loaded, looked through and watched."""
