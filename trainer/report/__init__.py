"""From the facts of a finished chain to one page that a person can judge it by."""
