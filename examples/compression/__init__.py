"""Every method of compression on a byte-level model trained on plain text, at several ratios."""
