"""A cluster in memory: what the operator sends is answered as a Kubernetes API server answers it.

Read in this order: `fields` (who owns which field), `server` (objects, versions, requests),
`controllers` (what makes pods of Deployments, and collects garbage), `faults` (what may go wrong
with a request), `world` (a user, an operator and a clock). `tests/memory` tries each fault at each
write with it; `tests/operator/test_memory_server.py` asks it and a real API server the same, and
compares the answers.

What it does not have: admission, validation and the defaults of fields that the operator never
reads, RBAC, ReplicaSets. What hangs on those is tried on a real API server.
"""
