"""The streaming worker: chat messages in, emotion labels and escalation events out."""

__version__ = "0.1.0"
