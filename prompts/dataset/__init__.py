"""The dataset on disk: written once, described by a manifest, read as a stream."""

from prompts.dataset.assemble import assemble
from prompts.dataset.chunk import ChunkFile, write_chunk
from prompts.dataset.files import DatasetError, file_sha256
from prompts.dataset.first import ShortError
from prompts.dataset.importer import import_dataset
from prompts.dataset.manifest import Counts, Diff, Manifest, ShardFile, SignalSummary, read_manifest
from prompts.dataset.read import open_signal, read_rejected, read_rows

__all__ = [
    "ChunkFile",
    "Counts",
    "DatasetError",
    "Diff",
    "Manifest",
    "ShardFile",
    "ShortError",
    "SignalSummary",
    "assemble",
    "file_sha256",
    "import_dataset",
    "open_signal",
    "read_manifest",
    "read_rejected",
    "read_rows",
    "write_chunk",
]
