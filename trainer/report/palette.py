"""Colours told apart by people with any colour vision (after Okabe and Ito, 2008), in two lights.

Plots are drawn in the light colours. In the page each becomes a CSS variable, so that one drawing
serves light, dark and paper.
"""

LIGHT = {
    "--ink": "#1b1f24",
    "--soft": "#5b6570",
    "--line": "#d5dae0",
    "--paper": "#ffffff",
    "--blue": "#0068a8",
    "--orange": "#b85f00",
    "--green": "#00795a",
    "--purple": "#9b4a86",
    "--sky": "#3a8fc4",
    "--red": "#c2410c",
    "--sand": "#8a7400",
    "--grey": "#7d8790",
}
DARK = {
    "--ink": "#e8ebee",
    "--soft": "#a5afb9",
    "--line": "#3a424b",
    "--paper": "#14181c",
    "--blue": "#5fb4ee",
    "--orange": "#f0a340",
    "--green": "#3cc79c",
    "--purple": "#de95c6",
    "--sky": "#8fd0f5",
    "--red": "#ff8a5c",
    "--sand": "#e3cf4e",
    "--grey": "#98a2ab",
}
SERIES = ("--blue", "--orange", "--green", "--purple", "--sky", "--red", "--sand", "--grey")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")


def css(colours: dict[str, str]) -> str:
    """Declarations of the variables."""
    return " ".join(f"{name}: {value};" for name, value in colours.items())


def themed(svg: str) -> str:
    """A drawing whose colours follow the page's."""
    for name, value in LIGHT.items():
        svg = svg.replace(value, f"var({name})")
    return svg
