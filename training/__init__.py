"""Makes the model: data, training, thresholds, report, export. The worker never imports it."""
