"""What Ray Serve costs one detector: yoloserve alone and behind Ray's proxies, in turns."""
