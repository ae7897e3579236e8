"""Data sets in memory and batches of them; what the files of `datasets` share."""
