"""What is asked of a teacher and what comes back: specs, templates, parsers, checks, datasets."""
