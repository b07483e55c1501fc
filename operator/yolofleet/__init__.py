"""YoloFleet's operator: brings clusters to what `YoloDetector` resources ask for."""
