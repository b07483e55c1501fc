"""`serve run stub_engine.rayserve:app`: the stub engine as a deployment of Ray Serve."""

from stub_engine.engine import start
from yoloserve.rayserve import deployment

app = deployment(start)
