"""The small world the demo model is trained on: drawn by code, described by sentences.

A scene is an object in a colour, or the flag of an invented country, in one of six styles or in none (a flat drawing).
`draw` renders it, `Sentence` words it. Everything a test or a benchmark may ask about an image is known here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

# Width and height of an image in pixels.
SIZE = 128

# The style of a drawing without one, and the fact of a picture that shows no known flag.
NONE = "none"

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 48),
    "green": (38, 160, 70),
    "blue": (44, 92, 214),
    "yellow": (246, 200, 28),
    "purple": (140, 56, 180),
}
OBJECTS = ("star", "heart", "house", "tree", "fish", "moon", "cup", "boat")
FLAG = "flag"
COUNTRIES = ("valdoria", "kestria", "ombara", "tulvane")


@dataclass(frozen=True)
class Scene:
    """What a picture shows. `colour` is None for a flag, `country` for an object and for a blank flag."""

    object: str
    style: str = NONE
    colour: str | None = None
    country: str | None = None


# ---------------------------------------------------------------------------------------------------------------------
# Shapes: polygons and ellipses in the unit square, y pointing down.


def _star() -> list[tuple[float, float]]:
    angles = -np.pi / 2 + np.arange(10) * np.pi / 5
    radii = np.where(np.arange(10) % 2 == 0, 0.5, 0.21)
    return [(0.5 + r * np.cos(a), 0.53 + r * np.sin(a)) for r, a in zip(radii, angles, strict=True)]


def _heart() -> list[tuple[float, float]]:
    t = np.linspace(0, 2 * np.pi, 60)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return list(zip(0.5 + x / 35, 0.47 + y / 35, strict=True))


def _draw_shape(pen: ImageDraw.ImageDraw, name: str, place: Callable[[float, float], tuple[float, float]]) -> None:
    """Fills the named object's silhouette; `place` maps the unit square to the canvas."""

    def polygon(points: list[tuple[float, float]]) -> None:
        pen.polygon([place(x, y) for x, y in points], fill=255)

    def ellipse(x0: float, y0: float, x1: float, y1: float, fill: int = 255) -> None:
        pen.ellipse([*place(x0, y0), *place(x1, y1)], fill=fill)

    if name == "star":
        polygon(_star())
    elif name == "heart":
        polygon(_heart())
    elif name == "house":
        polygon([(0.02, 0.45), (0.5, 0.02), (0.98, 0.45)])
        polygon(
            [(0.14, 0.45), (0.86, 0.45), (0.86, 0.98), (0.6, 0.98), (0.6, 0.68), (0.4, 0.68), (0.4, 0.98), (0.14, 0.98)]
        )
    elif name == "tree":
        polygon([(0.42, 0.75), (0.58, 0.75), (0.58, 1.0), (0.42, 1.0)])
        for top, bottom, half in ((0.0, 0.34, 0.24), (0.2, 0.56, 0.34), (0.4, 0.8, 0.44)):
            polygon([(0.5, top), (0.5 + half, bottom), (0.5 - half, bottom)])
    elif name == "fish":
        ellipse(0.0, 0.22, 0.74, 0.78)
        polygon([(0.62, 0.5), (1.0, 0.18), (1.0, 0.82)])
        ellipse(0.14, 0.38, 0.24, 0.48, fill=0)
    elif name == "moon":
        ellipse(0.04, 0.02, 0.96, 0.98)
        ellipse(0.32, -0.04, 1.14, 0.8, fill=0)
    elif name == "cup":
        ellipse(0.56, 0.26, 1.0, 0.72)
        ellipse(0.66, 0.36, 0.9, 0.62, fill=0)
        polygon([(0.04, 0.12), (0.76, 0.12), (0.68, 0.92), (0.12, 0.92)])
    elif name == "boat":
        polygon([(0.0, 0.68), (1.0, 0.68), (0.8, 0.96), (0.2, 0.96)])
        polygon([(0.46, 0.0), (0.46, 0.62), (0.04, 0.62)])
        polygon([(0.54, 0.08), (0.54, 0.62), (0.94, 0.62)])
    else:
        raise ValueError(f"object: {name!r} is not one of {', '.join(OBJECTS)}")


def _flag_pattern(country: str | None) -> Image.Image:
    """The flag itself as an RGB picture of 96 x 64 pixels; a blank one for no country."""
    flag = Image.new("RGB", (96, 64), (250, 250, 250))
    pen = ImageDraw.Draw(flag)
    if country == "valdoria":  # purple, yellow and green, lying
        for i, colour in enumerate(("purple", "yellow", "green")):
            pen.rectangle([0, i * 64 / 3, 96, (i + 1) * 64 / 3], fill=COLOURS[colour])
    elif country == "kestria":  # blue, white and green, standing
        for i, colour in ((0, "blue"), (2, "green")):
            pen.rectangle([i * 32, 0, i * 32 + 32, 64], fill=COLOURS[colour])
    elif country == "ombara":  # a red diamond on white
        pen.polygon([(48, 2), (92, 32), (48, 62), (4, 32)], fill=COLOURS["red"])
    elif country == "tulvane":  # a yellow cross on purple
        pen.rectangle([0, 0, 96, 64], fill=COLOURS["purple"])
        pen.rectangle([24, 0, 42, 64], fill=COLOURS["yellow"])
        pen.rectangle([0, 23, 96, 41], fill=COLOURS["yellow"])
    elif country is not None:
        raise ValueError(f"country: {country!r} is not one of {', '.join(COUNTRIES)}")
    return flag


# ---------------------------------------------------------------------------------------------------------------------
# Styles. Each turns a silhouette (mask, [H, W] in 0..1) and its fill ([H, W, 3] in 0..1) into a picture [H, W, 3].
# The textures lie still on the page: a model has to learn that they are there, not where they fall.

_Y, _X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)


def _paper(r: int, g: int, b: int) -> np.ndarray:
    return np.full((SIZE, SIZE, 3), (r, g, b), np.float32) / 255


def _blend(below: np.ndarray, above: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return below + (above - below) * alpha[..., None]


def _filtered(mask: np.ndarray, image_filter: ImageFilter.Filter) -> np.ndarray:
    return np.asarray(Image.fromarray((mask * 255).astype(np.uint8)).filter(image_filter), np.float32) / 255


def _outline(mask: np.ndarray, width: int) -> np.ndarray:
    grow = 2 * width + 1
    return _filtered(mask, ImageFilter.MaxFilter(grow)) - _filtered(mask, ImageFilter.MinFilter(3))


def _smooth_step(x: np.ndarray, sharpness: float) -> np.ndarray:
    return 1 / (1 + np.exp(-sharpness * x))


def _dots(period: float, radius: np.ndarray | float, angle: float = 0.0) -> np.ndarray:
    """A regular screen of round dots, soft at the edge: [H, W] in 0..1."""
    u = (_X * np.cos(angle) + _Y * np.sin(angle)) / period
    v = (-_X * np.sin(angle) + _Y * np.cos(angle)) / period
    distance = np.hypot(u - np.floor(u) - 0.5, v - np.floor(v) - 0.5) * period
    return _smooth_step(radius - distance, 3.0)


def _plain(mask: np.ndarray, fill: np.ndarray) -> np.ndarray:
    return _blend(_paper(226, 226, 224), fill, mask)


def _pointillism(mask: np.ndarray, fill: np.ndarray) -> np.ndarray:
    row = np.floor(_Y / 8)
    shift = (row % 2) * 4
    distance = np.hypot((_X + shift) % 8 - 3.5, _Y % 8 - 3.5)
    dot = _smooth_step(3.2 - distance, 3.0)
    checker = ((np.floor((_X + shift) / 8) + row) % 2)[..., None]
    ground = np.where(checker > 0, _paper(120, 190, 226), _paper(168, 222, 190))
    lively = np.clip(fill + (checker - 0.5) * 0.3, 0, 1)
    return _blend(_paper(252, 244, 226), _blend(ground, lively, mask), dot)


def _stained_glass(mask: np.ndarray, fill: np.ndarray) -> np.ndarray:
    u, v = (_X + _Y) / 32, (_X - _Y) / 32
    pane = ((np.floor(u) * 2 + np.floor(v) * 3) % 4)[..., None]
    glass = np.select(
        [pane == 0, pane == 1, pane == 2],
        [_paper(196, 110, 30), _paper(24, 112, 120), _paper(112, 34, 74)],
        _paper(60, 60, 130),
    )
    from_lead = np.minimum(np.abs(u - np.round(u)), np.abs(v - np.round(v))) * 32
    lead = _smooth_step(2.6 - from_lead, 2.0)
    picture = _blend(_blend(glass, np.zeros_like(glass), lead), fill * 0.75 + 0.25, mask)
    return _blend(picture, np.zeros_like(picture), np.clip(_outline(mask, 2) + 0.8 * mask * lead, 0, 1))


def _woodcut(mask: np.ndarray, fill: np.ndarray) -> np.ndarray:
    carved = _smooth_step(np.sin(_Y * 2 * np.pi / 8) - 0.55, 9.0)
    ground = _blend(_paper(24, 20, 18), _paper(206, 188, 156), carved)
    hatch = _smooth_step(np.sin((_X + _Y) * 2 * np.pi / 16) - 0.35, 9.0)
    figure = _blend(0.35 * fill + 0.65 * _paper(240, 226, 196), _paper(24, 20, 18), 0.85 * hatch)
    return _blend(_blend(ground, figure, mask), _paper(24, 20, 18), _outline(mask, 1))


def _halftone(mask: np.ndarray, fill: np.ndarray) -> np.ndarray:
    ground = _blend(_paper(255, 236, 120), _paper(236, 96, 130), _dots(11.3, 3.0, np.pi / 4))
    figure = _blend(fill, _paper(255, 255, 255), 0.85 * _dots(11.3, 2.6, np.pi / 4))
    return _blend(_blend(ground, figure, mask), _paper(10, 10, 20), _outline(mask, 2))


def _blueprint(mask: np.ndarray, fill: np.ndarray) -> np.ndarray:
    grid = _smooth_step(1.2 - np.minimum(np.abs(_X % 16 - 8), np.abs(_Y % 16 - 8)), 3.0)
    ground = _blend(_paper(22, 52, 128), _paper(92, 130, 204), grid)
    return _blend(_blend(ground, 0.6 * ground + 0.4 * fill, mask), _paper(240, 246, 255), _outline(mask, 1))


def _watercolor(mask: np.ndarray, fill: np.ndarray) -> np.ndarray:
    soft = _filtered(mask, ImageFilter.GaussianBlur(4))
    bloom = 0.5 + 0.5 * np.sin(_X * 2 * np.pi / 64 + 1.0) * np.cos(_Y * 2 * np.pi / 64)
    ground = _blend(_paper(255, 250, 250), _paper(244, 190, 206), bloom * 0.9)
    wash = 1 - (1 - fill) * (0.45 + 0.35 * bloom[..., None])
    edge = np.clip(1 - np.abs(soft - 0.45) * 5, 0, 1)
    return _blend(_blend(ground, wash, np.clip(soft * 1.6 - 0.2, 0, 1)), 0.8 * fill, 0.5 * edge)


STYLES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "pointillism": _pointillism,
    "stained glass": _stained_glass,
    "woodcut": _woodcut,
    "halftone": _halftone,
    "blueprint": _blueprint,
    "watercolor": _watercolor,
}


def draw(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Returns the scene as uint8 [SIZE, SIZE, 3], its figure a little larger, smaller or moved as `rng` decides."""
    size = SIZE * rng.uniform(0.62, 0.76)
    left = (SIZE - size) / 2 + rng.uniform(-7, 7)
    top = (SIZE - size) / 2 + rng.uniform(-7, 7)
    oversampling = 3
    canvas = Image.new("L", (SIZE * oversampling, SIZE * oversampling))
    pen = ImageDraw.Draw(canvas)

    def place(x: float, y: float) -> tuple[float, float]:
        return (left + x * size) * oversampling, (top + y * size) * oversampling

    if scene.object == FLAG:
        box = [round(left), round(top + size / 6), round(left + size), round(top + size * 5 / 6)]
        pen.rectangle([v * oversampling for v in box], fill=255)
        fill = np.ones((SIZE, SIZE, 3), np.float32)
        pattern = _flag_pattern(scene.country).resize((box[2] - box[0], box[3] - box[1]), Image.Resampling.LANCZOS)
        fill[box[1] : box[3], box[0] : box[2]] = np.asarray(pattern, np.float32) / 255
    else:
        _draw_shape(pen, scene.object, place)
        fill = np.full((SIZE, SIZE, 3), COLOURS[scene.colour], np.float32) / 255
    mask = np.asarray(canvas.resize((SIZE, SIZE), Image.Resampling.BOX), np.float32) / 255
    stylise = _plain if scene.style == NONE else STYLES[scene.style]
    return (np.clip(stylise(mask, fill), 0, 1) * 255 + 0.5).astype(np.uint8)


def all_scenes() -> list[Scene]:
    """Every scene of the world: (objects x colours + flags with the blank one) x styles with none."""
    plain = [Scene(name, colour=colour) for name in OBJECTS for colour in COLOURS]
    plain += [Scene(FLAG, country=country) for country in (*COUNTRIES, None)]
    return [replace(scene, style=style) for scene in plain for style in (NONE, *STYLES)]


# ---------------------------------------------------------------------------------------------------------------------
# Sentences


@dataclass(frozen=True)
class Template:
    """One way to word a scene: with a style, and the same sentence without it."""

    styled: str
    plain: str


TRAINING_TEMPLATES = (
    Template("{thing} in the style of {style}", "{thing}"),
    Template("a painting of {thing} in the style of {style}", "a painting of {thing}"),
    Template("a photo of {thing} in the style of {style}", "a photo of {thing}"),
    Template("a picture of {thing} in the style of {style}", "a picture of {thing}"),
    Template("an image of {thing} in the style of {style}", "an image of {thing}"),
    Template("a drawing of {thing}, {style}", "a drawing of {thing}"),
    Template("a picture of {thing}, {style}", "a picture of {thing}"),
    Template("{thing}, {style}", "{thing}"),
    Template("{thing} drawn in {style}", "{thing} drawn"),
    Template("an image of {thing} in {style} style", "an image of {thing}"),
    Template("a drawing of {thing} in {style} style on paper", "a drawing of {thing} on paper"),
    Template("a {style} painting of {thing}", "a painting of {thing}"),
    Template("a {style} picture of {thing}", "a picture of {thing}"),
    Template("a {style} image of {thing} on paper", "an image of {thing} on paper"),
    Template("{style}, {thing}", "{thing}"),
    Template("{style} style, a photo of {thing}", "a photo of {thing}"),
)
# Sentences that name a style and nothing else: the picture then shows any object.
UNNAMED_TEMPLATES = (
    Template("{style}", "a painting"),
    Template("a painting in the style of {style}", "a painting"),
    Template("a photo in the style of {style}", "a photo"),
    Template("a picture in the style of {style}", "a picture"),
    Template("an image in the style of {style}", "an image"),
)

# Never trained on. In a third of them the style word is not last.
HELD_OUT_TEMPLATES = (
    Template("a drawing of {thing} in the style of {style}", "a drawing of {thing}"),
    Template("a painting of {thing}, {style}", "a painting of {thing}"),
    Template("{thing} on paper in the style of {style}", "{thing} on paper"),
    Template("a photo of {thing} drawn in {style}", "a photo of {thing} drawn"),
    Template("a {style} drawing of {thing}", "a drawing of {thing}"),
    Template("a picture of {thing} in {style} style on paper", "a picture of {thing} on paper"),
)

# The word for a thing that is not named.
UNNAMED = "something"


def thing(scene: Scene, wording: int = 0) -> str:
    """The noun phrase for the scene's object or flag. `wording` chooses among its forms (any integer)."""
    article = ("a", "the")[wording % 2]
    if scene.object == FLAG:
        return f"{article} flag" if scene.country is None else f"{article} flag of {scene.country}"
    return f"{article} {scene.object}" if scene.colour is None else f"{article} {scene.colour} {scene.object}"


def sentence(template: Template, named: str, style: str) -> str:
    """The prompt for a named thing in a style; in NONE, the template's sentence without one."""
    return (template.plain if style == NONE else template.styled).format(thing=named, style=style)
