"""Serve a YOLO detector over HTTP: pictures in, boxes out, never late."""

import os

# Nothing here multiplies matrices with NumPy: its BLAS need not start a thread for each core.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
