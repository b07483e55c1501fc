"""What people would write instead. Run in the peers' environment, without a line of yoloserve."""
