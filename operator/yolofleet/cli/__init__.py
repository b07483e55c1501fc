"""`kubectl yd`: sees detectors, and edits them as a person would.

It needs Python and kubectl and nothing else, so that it is there at once: no client library, and of
the operator only the names and the commands that messages tell.
"""
