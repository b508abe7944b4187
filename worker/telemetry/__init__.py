"""What the worker says about itself: logs, metrics, traces, drift, health. Never a message's text."""
