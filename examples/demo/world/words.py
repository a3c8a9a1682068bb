"""The words of the demo world: names, countable things, categories, nonsense labels."""


def _split(words: str) -> list[str]:
    """One string is easier to read than a list of forty quoted words."""
    return words.split()


NAMES = _split(
    "Ann Ben Cara Dan Eva Finn Gina Hugo Ida Jack Kim Leo Mia Ned Olga Paul Rosa Sam Tina Vera"
)

# Regular plurals only: a story never has to say "1 pears", its operands start at 2.
THINGS = _split(
    "pears apples coins books pens cards shells stones marbles stamps buttons cookies eggs plums "
    "keys cups beads tickets nuts balls"
)

PLACES = _split("garden park shop kitchen street school attic yard")
CONTAINERS = _split("boxes bags jars trays")

CATEGORIES: dict[str, list[str]] = {
    "animal": _split("cat dog horse cow pig sheep goat lion tiger wolf fox rabbit"),
    "fruit": _split("apple pear fig plum peach grape lemon lime mango melon cherry kiwi"),
    "vehicle": _split("car bus train truck van boat ship plane bike tram taxi ferry"),
    "clothing": _split("shirt hat coat sock shoe glove scarf belt dress skirt jacket boot"),
    "colour": _split("red blue green yellow white black brown pink purple grey violet beige"),
    "tool": _split("hammer saw drill wrench pliers chisel shovel rake axe ladder spade broom"),
    "body": _split("hand foot arm leg nose ear eye mouth knee elbow chin neck"),
    "furniture": _split("table chair bed desk sofa lamp shelf stool bench mirror rug drawer"),
    "weather": _split("rain snow wind storm fog hail frost cloud thunder mist sleet breeze"),
    "instrument": _split("piano violin drum flute guitar harp trumpet cello horn banjo oboe tuba"),
    "job": _split(
        "doctor teacher baker farmer nurse pilot driver judge painter sailor tailor clerk"
    ),
    "drink": _split("tea coffee milk juice water wine beer cider cocoa soda rum gin"),
}

# The words that instructions work on: four categories are enough to make a list hard to guess.
LIST_WORDS = [
    word for name in ("animal", "fruit", "vehicle", "clothing") for word in CATEGORIES[name]
]

LABELS = _split(
    "zub kiv mox dap fen gol hux jat lem nid pov quz rab sif tuk vom wex yad zin bok "
    "cug dren flim gost hib jup kral lusk mip nof plen resk snib trob vask wim yol zeft brup clid"
)
