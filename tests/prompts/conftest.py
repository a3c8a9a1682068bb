"""Property tests: no timing assertions, nothing written into the tree, the same examples always."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "retort",
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("retort")
