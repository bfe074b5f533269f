"""Results on disk: one folder per run, named by the hash of its config, whole or absent."""

from attnflow.store.checkpoints import Checkpoint, claim
from attnflow.store.identity import canonical, fingerprint, folder_of
from attnflow.store.provenance import gather_provenance
from attnflow.store.runs import FORMAT, RunInfo, exists, find, list_runs, load, read_config
from attnflow.store.saving import check_writable, clean_leftovers, save

__all__ = [
    "FORMAT",
    "Checkpoint",
    "RunInfo",
    "canonical",
    "check_writable",
    "claim",
    "clean_leftovers",
    "exists",
    "find",
    "fingerprint",
    "folder_of",
    "gather_provenance",
    "list_runs",
    "load",
    "read_config",
    "save",
]
