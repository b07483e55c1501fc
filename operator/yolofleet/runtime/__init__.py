"""What a controller needs of the API server, whatever it is for: nothing here knows a detector."""
