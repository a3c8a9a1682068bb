"""Side-by-side measurements: ours against a peer or a limit, interleaved, as a ratio, in one run."""
