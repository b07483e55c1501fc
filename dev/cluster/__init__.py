"""The local kind cluster that the demo and the end-to-end tests run on.

Use `cluster.paths.TOOLS` to find its kubeconfig, kubectl, helm and kind.
"""
