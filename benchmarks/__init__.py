"""Side-by-side measurements: ours against a peer or a limit, interleaved, in one run."""
