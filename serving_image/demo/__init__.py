"""Draws pictures of shapes; trains, exports and scores the bundled detector. Not used to serve."""
