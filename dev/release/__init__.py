"""`make release`: images, what is in them, and the chart that names them by digest."""
