"""What all tests share."""

from hypothesis import settings

# The same examples on every run: a release must not wait for luck. Campaigns draw at random.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("campaign", deadline=None, print_blob=True)
settings.load_profile("steady")
