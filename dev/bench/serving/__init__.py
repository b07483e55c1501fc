"""yoloserve beside what people would pick instead: same machine, pictures, network and clients.

Servers take turns in one run, so that whatever else the machine does meets all of them alike.
"""
