"""What is spoken: routes, their JSON, the limits on a request, the process that listens."""
