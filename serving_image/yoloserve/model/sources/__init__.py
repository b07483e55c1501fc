"""Where models come from: one file a kind of address, and the cache they all fill."""
