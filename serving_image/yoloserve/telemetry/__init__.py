"""What others see of the server: metrics, logs, traces."""
