"""The decisions: pure functions and state machines without a clock, a thread, a log or a network."""
