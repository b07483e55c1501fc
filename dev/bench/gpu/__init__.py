"""The engine alone, the whole path and whole servers on an NVIDIA GPU, in one run."""
