"""One row on its way: what it is asked with."""

from dataclasses import dataclass
from hashlib import sha256

from prompts.record import Message, Reason, Seed
from prompts.tools import Tool


@dataclass(frozen=True)
class Row:
    """A seed with its prompt."""

    seed: Seed
    key: str
    """The seed's input key: its split and its contamination go by it."""
    demos: tuple[Seed, ...]
    prompt: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    """The functions that may be called."""
    fault: tuple[Reason, str] | None = None
    """Why nothing is asked: its demonstrations don't do, or no prompt can be made of them."""

    @property
    def demo_ids(self) -> tuple[str, ...]:
        """Ids of the demonstrations, in the order in which they are shown."""
        return tuple(demo["id"] for demo in self.demos)


def prefix_key(row: Row) -> str | None:
    """The key of a prompt's beginning, for prompts with the same demonstrations; None without."""
    if not row.demos:
        return None
    return sha256("\n".join(row.demo_ids).encode()).hexdigest()[:16]


def with_hint(prompt: tuple[Message, ...], hint: str) -> tuple[Message, ...]:
    """The prompt with a hint after its last turn, which is the user's."""
    last = prompt[-1]
    hinted = last.model_copy(update={"content": f"{last.content}\n\n{hint}"})
    return (*prompt[:-1], hinted)
