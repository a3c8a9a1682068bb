"""The demo: a small world in plain English, the models trained in it, and their measures."""
