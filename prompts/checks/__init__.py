"""Checks of one completion. Pure: a reply in, what is wrong with it out."""

from prompts.checks.always import CHECKS, ROW_CHECKS, Check, Reply, first_fault

__all__ = ["CHECKS", "ROW_CHECKS", "Check", "Reply", "first_fault"]
