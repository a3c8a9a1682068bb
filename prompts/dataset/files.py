"""The files of a dataset, and what is raised of a directory that is none."""

from prompts.files import file_sha256, sync, whole_file, write_text

__all__ = ["DatasetError", "file_sha256", "sync", "whole_file", "write_text"]


class DatasetError(ValueError):
    """A directory that is no dataset, or rows that can't become one."""
