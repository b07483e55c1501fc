"""The operator, broken on purpose: a proxy between it and the API server, and what must still hold.

`proxy` sees each request and each line of each watch, `faults` are what can happen to them, `stage`
is a detector with an operator of its own behind a proxy, `traces` are what users do to it,
`history` is all that the API server did in order, and `oracles` judge the end and the way there.
"""
