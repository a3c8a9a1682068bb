"""What is wrong with one field of a spec, where several fields are looked at together."""


class FieldError(ValueError):
    """`field` is the field's path within whatever is validated; `problem` says what is wrong."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem
