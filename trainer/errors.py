"""What a person is told when the trainer can't go on."""


class BadInput(Exception):  # noqa: N818  it names the input, not the program
    """Something given to the trainer can't be used; the same input fails the same way again.

    `title` says what is wrong, `detail` what to do. The command line turns it into an `error`
    event and exit code 2, and nobody retries it.
    """

    def __init__(self, title: str, detail: str) -> None:
        super().__init__(f"{title}: {detail}")
        self.title = title
        self.detail = detail


class Diverged(BadInput):
    """The loss or its gradient left the finite numbers; a seeded run does so every time."""


class Lost(Exception):  # noqa: N818
    """Something that the run leans on went away; the same run may go on from its checkpoint.

    `title` and `detail` as those of `BadInput`; exit code 1, which is tried again.
    """

    def __init__(self, title: str, detail: str) -> None:
        super().__init__(f"{title}: {detail}")
        self.title = title
        self.detail = detail


class Terminated(BaseException):
    """SIGTERM or Ctrl-C came; what could be saved is saved. Exit code 143.

    No Exception, as KeyboardInterrupt is none: it is raised wherever the process just is, and
    libraries that catch all Exceptions around what they only try would lose it.
    """
