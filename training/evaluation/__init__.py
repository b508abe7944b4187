"""Scores, plots and the report, from saved logits; no model."""
