"""What the statistics of `yolofleet.analysis` do to good and bad releases, by simulation."""
