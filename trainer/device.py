"""Where a training computes."""

import os

import torch


def training_device() -> torch.device:
    """This process's GPU, or the CPU where there is none. transformers.Trainer takes the same."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")
