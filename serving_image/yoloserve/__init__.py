"""Serve a YOLO detector over HTTP: pictures in, boxes out, never late."""
