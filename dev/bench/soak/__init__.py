"""Does the server hold out: half an hour above its capacity, watched for what grows."""
