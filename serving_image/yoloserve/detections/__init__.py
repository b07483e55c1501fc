"""What a network's numbers mean: boxes, classes, scores; pure."""
