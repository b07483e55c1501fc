"""What looking at judged releases costs the operator: `python -m bench.sampler`."""
