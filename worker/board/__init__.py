"""The live board: a page for supervisors, fed from the output topics."""
