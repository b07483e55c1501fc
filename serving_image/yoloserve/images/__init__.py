"""Pictures: from bytes to pixels, and into the tensor of a network."""
