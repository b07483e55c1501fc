"""Front processes before the engine's: what one interpreter has no time for.

Each front speaks HTTP, asks who it is, decodes and writes answers; it knows no model. The process
of the engine has what all requests share: the queue, places, quotas, streams, metrics, and every
page but those that detect. `wire` is what they say to each other, `slots` where pictures lie;
`engine_side` answers fronts and looks after their processes, `front_side` is what a front has in
the place of an engine, `front` a front's process.
"""
