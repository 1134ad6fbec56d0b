"""The thresholds that turn maps into the best instances, searched on validation data."""
