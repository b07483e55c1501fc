"""How good a model is, on labelled pictures and after a conversion."""
