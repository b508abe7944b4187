"""One decision threshold a label, from saved logits; numpy only."""
