"""One decision threshold a label, and calibrated probabilities, from saved logits; numpy only."""
