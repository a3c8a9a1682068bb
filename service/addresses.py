"""Where the faces of the service stand under its URL."""

API = "/api/v1"
"""The native API."""
ALIVE = "/healthz"
"""Answers while the process does."""
READY = "/readyz"
"""Says what works."""
