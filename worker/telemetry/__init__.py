"""What the worker says about itself: logs, metrics, health. Never a message's text."""
