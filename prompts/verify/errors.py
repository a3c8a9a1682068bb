"""What keeps answers from being compared."""


class GoldError(ValueError):
    """A gold answer that no completion could be compared with."""


class VerifyError(ValueError):
    """The comparison could not be made: it took too long, or the verifier itself failed."""
