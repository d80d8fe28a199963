"""Drawn faces with separate factors: who it is, the expression (the label), the age, the picture.

They need no download and show nobody, so that tests and examples can use them freely.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..config import DataConfig, SyntheticFacesConfig
from ..errors import DataError
from .cache import cache_dir, make_cache_dir
from .manifest import Manifest, datasets, require_label

DRAWING_VERSION = 1
"""Part of the folder name; raise it when the same parameters give other pixels."""

OVERSAMPLING = 4
"""Faces are drawn so many times larger and averaged down, which smooths their edges."""

EXPRESSIONS = ("neutral", "smile", "surprise", "sad", "angry", "sleepy", "laugh", "afraid")

SKIN_TONES = ("#f6d7c3", "#eabf9f", "#d8a47f", "#bd8358", "#946140", "#6b432c")
HAIR_COLORS = ("#17120f", "#3b2417", "#6d4426", "#a4713a", "#d9b66b", "#9c3f1f")
EYE_COLORS = ("#3a2413", "#6b4a25", "#3f6b4a", "#3d6c9e", "#6f7f88")
HAIR_STYLES = ("short", "long", "fringe", "curly", "bald")

Color = np.ndarray
"""Three floats in 0..255."""


@dataclass(frozen=True)
class Identity:
    """What stays the same in all pictures of a person; lengths are shares of the image edge."""

    skin: Color
    hair: Color
    iris: Color
    lips: Color
    clothes: Color
    hair_style: str
    face_width: float
    face_height: float
    squareness: float
    """Exponent of the superellipse: 2 is an oval, above it a box."""
    chin: float
    """How much the face narrows towards the chin, 0..1."""
    eye_distance: float
    eye_size: float
    eye_height: float
    nose_length: float
    nose_width: float
    mouth_width: float
    mouth_height: float
    brow_thickness: float
    ear_size: float
    glasses: bool
    moustache: bool
    mole: tuple[float, float]
    resting_curve: float
    """Curve of the mouth at rest: some people always seem to smile a little."""
    resting_brow: float


@dataclass(frozen=True)
class Expression:
    """The moving parts of a face; zeros and eye_opening 1 are a face at rest."""

    mouth_curve: float
    mouth_opening: float
    brow_tilt: float
    """Positive: inner ends down, as in anger."""
    brow_raise: float
    eye_opening: float


EXPRESSION_SHAPES = (
    Expression(0.0, 0.0, 0.0, 0.0, 1.0),
    Expression(1.0, 0.55, 0.0, 0.2, 0.7),
    Expression(0.0, 1.0, 0.0, 1.0, 1.35),
    Expression(-1.0, 0.0, -0.9, 0.2, 0.8),
    Expression(-0.6, 0.1, 1.0, -0.6, 0.9),
    Expression(0.1, 0.0, 0.1, 0.1, 0.12),
    Expression(1.3, 1.1, 0.0, 0.6, 0.25),
    Expression(-0.6, 0.5, -0.9, 0.9, 1.4),
)
"""Full-strength shapes in the order of EXPRESSIONS."""


@dataclass(frozen=True)
class Picture:
    """What differs between two pictures of the same face."""

    background: Color
    shift: tuple[float, float]
    scale: float
    rotation: float
    light: float
    light_slope: float
    """Difference of light between the left and the right edge."""
    noise: float
    """Standard deviation of the pixel noise, in grey levels."""


def draw_face(
    identity: int,
    expression: int,
    age: float,
    *,
    seed: int,
    nuisance_seed: int,
    image_size: int,
) -> np.ndarray:
    """Return a drawn face as (3, S, S) uint8; the same arguments give the same pixels.

    Parameters
    ----------
    identity : number of the person; with `seed` it fixes the shape, the colours and the hair
    expression : index into EXPRESSIONS
    age : 0 (young) .. 1 (old): wrinkles and grey hair
    seed : of the whole population, >= 0
    nuisance_seed : of this picture: strength of the expression, position, light, noise, >= 0
    """
    person = _draw_identity(np.random.default_rng([seed, identity]))
    rng = np.random.default_rng([1, nuisance_seed])
    shape = _vary_expression(EXPRESSION_SHAPES[expression], person, rng)
    picture = _draw_picture(rng)
    pen = Pen(image_size * OVERSAMPLING, picture)
    paint_face(pen, person, shape, age)
    return _develop(pen.image.reduce(OVERSAMPLING), picture, rng)


def _draw_identity(rng: np.random.Generator) -> Identity:
    skin = _mix(_pick(rng, SKIN_TONES), _pick(rng, SKIN_TONES), rng.uniform(0, 0.4))
    return Identity(
        skin=skin,
        hair=_pick(rng, HAIR_COLORS) + rng.uniform(-10, 10, 3),
        iris=_pick(rng, EYE_COLORS),
        lips=_mix(skin, np.array([165.0, 50.0, 60.0]), rng.uniform(0.4, 0.75)),
        clothes=rng.uniform(30, 220, 3),
        hair_style=str(rng.choice(HAIR_STYLES)),
        face_width=rng.uniform(0.23, 0.31),
        face_height=rng.uniform(0.31, 0.37),
        squareness=rng.uniform(1.9, 3.0),
        chin=rng.uniform(0.05, 0.4),
        eye_distance=rng.uniform(0.095, 0.145),
        eye_size=rng.uniform(0.036, 0.055),
        eye_height=rng.uniform(-0.08, -0.02),
        nose_length=rng.uniform(0.08, 0.15),
        nose_width=rng.uniform(0.02, 0.055),
        mouth_width=rng.uniform(0.09, 0.135),
        mouth_height=rng.uniform(0.165, 0.205),
        brow_thickness=rng.uniform(0.010, 0.026),
        ear_size=rng.uniform(0.03, 0.065),
        glasses=bool(rng.random() < 0.25),
        moustache=bool(rng.random() < 0.2),
        mole=(rng.uniform(-0.18, 0.18), rng.uniform(0.02, 0.2)),
        resting_curve=rng.uniform(-0.3, 0.3),
        resting_brow=rng.uniform(-0.25, 0.25),
    )


def _vary_expression(full: Expression, person: Identity, rng: np.random.Generator) -> Expression:
    """Return a shape of random strength on the person's resting face, so that classes are close."""
    strength = rng.uniform(0.6, 1.0)
    jitter = rng.normal(0, 0.1, 5)
    return Expression(
        mouth_curve=strength * full.mouth_curve + person.resting_curve + jitter[0],
        mouth_opening=max(0.0, strength * full.mouth_opening + 0.5 * jitter[1]),
        brow_tilt=strength * full.brow_tilt + person.resting_brow + jitter[2],
        brow_raise=strength * full.brow_raise + jitter[3],
        eye_opening=max(0.08, 1 + strength * (full.eye_opening - 1) + jitter[4]),
    )


def _draw_picture(rng: np.random.Generator) -> Picture:
    return Picture(
        background=rng.uniform(130, 190) + rng.uniform(-25, 25, 3),
        shift=(rng.uniform(-0.03, 0.03), rng.uniform(-0.03, 0.03)),
        scale=rng.uniform(1.05, 1.15),
        rotation=rng.uniform(-0.08, 0.08),
        light=rng.uniform(0.8, 1.1),
        light_slope=rng.uniform(-0.25, 0.25),
        noise=rng.uniform(1, 5),
    )


def _develop(image: Image.Image, picture: Picture, rng: np.random.Generator) -> np.ndarray:
    """Return the drawing under the light and the noise of a picture, as (3, S, S) uint8."""
    pixels = np.asarray(image, dtype=np.float64)
    size = pixels.shape[0]
    slope = np.linspace(-0.5, 0.5, size)[None, :, None] * picture.light_slope
    lit = pixels * (picture.light + slope) + rng.normal(0, picture.noise, (size, size, 1))
    return lit.round().clip(0, 255).astype(np.uint8).transpose(2, 0, 1)


def _pick(rng: np.random.Generator, colors: tuple[str, ...]) -> Color:
    text = colors[rng.integers(len(colors))]
    return np.array([int(text[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.float64)


def _mix(first: Color, second: Color, share: float) -> Color:
    return first * (1 - share) + second * share


class Pen:
    """Draws in face coordinates: origin in the middle of the face, unit the image edge, y down."""

    def __init__(self, size: int, picture: Picture):
        self.size = size
        self.image = Image.new("RGB", (size, size), _rgb(picture.background))
        self._draw = ImageDraw.Draw(self.image)
        cos, sin = np.cos(picture.rotation), np.sin(picture.rotation)
        self._turn = picture.scale * np.array([[cos, sin], [-sin, cos]])
        self._middle = np.array([0.5, 0.53]) + picture.shift

    def _pixels(self, points: np.ndarray) -> list[tuple[float, float]]:
        placed = (np.asarray(points) @ self._turn + self._middle) * self.size
        return [(float(x), float(y)) for x, y in placed]

    def polygon(self, points: np.ndarray, color: Color) -> None:
        self._draw.polygon(self._pixels(points), fill=_rgb(color))

    def line(self, points: np.ndarray, color: Color, width: float) -> None:
        pixels = max(1, round(width * self.size))
        self._draw.line(self._pixels(points), fill=_rgb(color), width=pixels, joint="curve")

    def ellipse(self, x: float, y: float, rx: float, ry: float, color: Color) -> None:
        self.polygon(superellipse(x, y, rx, ry), color)


def _rgb(color: Color) -> tuple[int, int, int]:
    red, green, blue = np.clip(np.round(color), 0, 255).astype(int).tolist()
    return red, green, blue


def superellipse(
    x: float, y: float, rx: float, ry: float, *, exponent: float = 2.0, chin: float = 0.0
) -> np.ndarray:
    """Return (60, 2) points of |dx/rx|^n + |dy/ry|^n = 1, narrowed downwards by `chin`."""
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    dx = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** (2 / exponent)
    dy = np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** (2 / exponent)
    dx = dx * (1 - chin * np.maximum(dy, 0))
    return np.stack([x + rx * dx, y + ry * dy], axis=1)


def _arc(x: float, y: float, half_width: float, sag: float) -> np.ndarray:
    """Return (21, 2) points of a parabola through (x +- half_width, y) whose middle is y + sag."""
    t = np.linspace(-1, 1, 21)
    return np.stack([x + half_width * t, y + sag * (1 - t**2)], axis=1)


def paint_face(pen: Pen, person: Identity, shape: Expression, age: float) -> None:
    """Paint from back to front."""
    hair = _mix(person.hair, np.array([205.0, 205.0, 205.0]), 0.9 * age**1.5)
    _paint_body(pen, person)
    _paint_back_hair(pen, person, hair)
    _paint_head(pen, person)
    _paint_wrinkles(pen, person, age)
    _paint_front_hair(pen, person, hair)
    for side in (-1, 1):
        _paint_eye(pen, person, shape, side)
        _paint_brow(pen, person, shape, hair, side)
    _paint_nose(pen, person)
    _paint_mouth(pen, person, shape)
    if person.moustache:
        y = person.mouth_height - 0.035
        pen.line(_arc(0, y + 0.012, person.mouth_width, -0.02), hair, 0.026)
    if person.glasses:
        _paint_glasses(pen, person)


def _paint_body(pen: Pen, person: Identity) -> None:
    pen.ellipse(0, 0.62, 0.4, 0.22, person.clothes)
    pen.ellipse(0, 0.36, 0.11, 0.14, person.skin * 0.85)


def _paint_back_hair(pen: Pen, person: Identity, hair: Color) -> None:
    width, height = person.face_width, person.face_height
    if person.hair_style == "long":
        pen.polygon(superellipse(0, 0.06, width + 0.09, height + 0.09, exponent=3.0), hair * 0.9)
    if person.hair_style == "curly":
        for angle in np.linspace(-0.1 * np.pi, 1.1 * np.pi, 15):
            x, y = (width + 0.02) * np.cos(angle), -0.08 - (height - 0.04) * np.sin(angle)
            pen.ellipse(x, y, 0.085, 0.085, hair)


def _paint_head(pen: Pen, person: Identity) -> None:
    for side in (-1, 1):
        x, size = side * (person.face_width - 0.005), person.ear_size
        pen.ellipse(x, person.eye_height + 0.04, size, size * 1.4, person.skin * 0.9)
    outline = {"exponent": person.squareness, "chin": person.chin}
    pen.polygon(
        superellipse(0, 0, person.face_width, person.face_height, **outline), person.skin * 0.8
    )
    pen.polygon(
        superellipse(0, 0, person.face_width - 0.008, person.face_height - 0.008, **outline),
        person.skin,
    )
    pen.ellipse(*person.mole, 0.011, 0.011, person.skin * 0.5)


def _paint_front_hair(pen: Pen, person: Identity, hair: Color) -> None:
    """Paint a cap over the skull; its lower edge is what tells the styles apart."""
    width, height = person.face_width + 0.015, person.face_height + 0.03
    line = {"short": -0.5, "long": -0.55, "fringe": -0.36, "curly": -0.5, "bald": -2.0}
    edge = line[person.hair_style] * height
    cap = superellipse(0, 0, width, height, exponent=person.squareness)
    cap = cap[cap[:, 1] <= edge]
    if len(cap):
        sag = 0.03 if person.hair_style == "fringe" else -0.07
        half_width = float(np.abs(cap[:, 0]).max())
        hairline = _arc(0, float(cap[:, 1].max()), half_width, sag)[::-1]
        pen.polygon(np.concatenate([cap[np.argsort(cap[:, 0])], hairline]), hair)


def _paint_wrinkles(pen: Pen, person: Identity, age: float) -> None:
    """Paint lines that darken with age on the forehead, under the eyes and beside the mouth."""
    color = person.skin * (1 - 0.4 * age)
    width = 0.004 + 0.006 * age
    for k in range(round(3 * age)):
        y = person.eye_height - 0.115 - 0.028 * k
        pen.line(_arc(0, y, 0.11, -0.008), color, width)
    for side in (-1, 1):
        eye_x = side * person.eye_distance
        pen.line(_arc(eye_x, person.eye_height + 0.06, 0.04, 0.016), color, width)
        fold = np.array(
            [
                [side * (person.nose_width + 0.025), person.mouth_height - 0.06],
                [side * (person.mouth_width + 0.03), person.mouth_height + 0.015],
            ]
        )
        pen.line(fold, color, width)


def _paint_eye(pen: Pen, person: Identity, shape: Expression, side: int) -> None:
    x, y, size = side * person.eye_distance, person.eye_height, person.eye_size
    opening = size * 0.7 * shape.eye_opening
    white, black = np.full(3, 245.0), np.full(3, 20.0)
    pen.ellipse(x, y, size, opening, white)
    iris = min(size * 0.55, opening)
    pen.ellipse(x, y, size * 0.55, iris, person.iris)
    pen.ellipse(x, y, size * 0.27, min(size * 0.27, opening), black)
    pen.line(_arc(x, y, size, -opening), person.skin * 0.35, 0.011)


def _paint_brow(pen: Pen, person: Identity, shape: Expression, hair: Color, side: int) -> None:
    y = person.eye_height - person.eye_size - 0.022 - 0.035 * shape.brow_raise
    inner, outer = person.eye_distance - 0.05, person.eye_distance + 0.055
    tilt = 0.028 * shape.brow_tilt
    points = [[inner, y + tilt], [(inner + outer) / 2, y - 0.012], [outer, y + 0.005 - 0.5 * tilt]]
    pen.line(np.array(points) * [side, 1], hair * 0.75, person.brow_thickness)


def _paint_nose(pen: Pen, person: Identity) -> None:
    top, tip = person.eye_height + 0.02, person.eye_height + 0.02 + person.nose_length
    width = person.nose_width
    bridge = np.array([[-0.012, top], [0.012, top], [width, tip], [-width, tip]])
    pen.polygon(bridge, person.skin * 0.93)
    pen.line(_arc(0, tip, width, 0.014), person.skin * 0.6, 0.011)


def _paint_mouth(pen: Pen, person: Identity, shape: Expression) -> None:
    """Paint two lips that part with mouth_opening; a curve of 1 lifts the corners."""
    y, width = person.mouth_height, person.mouth_width * (1 + 0.12 * shape.mouth_curve)
    sag, opening = 0.06 * shape.mouth_curve, 0.08 * shape.mouth_opening
    upper = _arc(0, y - 0.5 * sag, width, sag - 0.3 * opening)
    lower = _arc(0, y - 0.5 * sag, width, sag + opening)
    if opening > 0.005:
        pen.polygon(np.concatenate([upper, lower[::-1]]), np.array([70.0, 20.0, 25.0]))
        if shape.mouth_curve > 0.4:
            teeth = upper + 0.45 * (lower - upper)
            pen.polygon(np.concatenate([upper, teeth[::-1]]), np.full(3, 240.0))
    pen.line(lower, person.lips, 0.02)
    pen.line(upper, person.lips * 0.8, 0.013)


def _paint_glasses(pen: Pen, person: Identity) -> None:
    color, y = np.full(3, 35.0), person.eye_height
    radius = person.eye_size + 0.022
    for side in (-1, 1):
        ring = superellipse(side * person.eye_distance, y, radius, radius * 0.85, exponent=2.6)
        pen.line(np.concatenate([ring, ring[:2]]), color, 0.012)
        temple = [[side * (person.eye_distance + radius), y], [side * person.face_width, y - 0.01]]
        pen.line(np.array(temple), color, 0.012)
    pen.line(np.array([[-1, 0], [1, 0]]) * (person.eye_distance - radius) + [0, y], color, 0.012)


@datasets.register("synthetic")
def load_synthetic(cfg: DataConfig) -> Manifest:
    """Draw the faces once into the cache folder and return their manifest."""
    manifest = describe_synthetic(cfg)
    if not manifest.root.is_dir():
        make_cache_dir(cfg)
        _write_images(manifest.root, plan_images(cfg.synthetic), cfg.synthetic.seed, cfg.image_size)
    return manifest


def describe_synthetic(cfg: DataConfig) -> Manifest:
    """Return the manifest of the faces without drawing them.

    Every person has `images_per_identity` pictures, whose expressions cycle through the classes
    and whose age varies; the splits are drawn later, by identity.
    """
    require_label(cfg, "expression")
    faces = cfg.synthetic
    plan = plan_images(faces)
    root = cache_dir(cfg) / f"synthetic-{_digest(faces, cfg.image_size)}"
    return Manifest(
        root=root.resolve(),
        image_paths=[image.image_path for image in plan],
        identities=np.array([f"person_{image.identity:03d}" for image in plan]),
        labels=np.array([image.expression for image in plan], dtype=np.int64),
        splits=np.full(len(plan), "", dtype="<U5"),
        label_names=list(EXPRESSIONS[: faces.num_expressions]),
        title="synthetic faces (drawn, no real persons)",
        synthetic=True,
        may_show=True,
    )


@dataclass(frozen=True)
class PlannedImage:
    """One picture to be drawn."""

    image_path: str
    identity: int
    expression: int
    age: float
    nuisance_seed: int


def plan_images(faces: SyntheticFacesConfig) -> list[PlannedImage]:
    """Return the pictures of a configuration, person by person.

    The cycle of expressions starts at another class for every person, so that the classes stay
    balanced where a person has fewer pictures than there are classes.
    """
    plan = []
    for identity in range(faces.num_identities):
        for k in range(faces.images_per_identity):
            rng = np.random.default_rng([2, faces.seed, identity, k])
            expression = (identity + k) % faces.num_expressions
            path = f"person_{identity:03d}/{k:03d}_{EXPRESSIONS[expression]}.png"
            age, nuisance_seed = float(rng.random()), int(rng.integers(2**32))
            plan.append(PlannedImage(path, identity, expression, age, nuisance_seed))
    return plan


def _digest(faces: SyntheticFacesConfig, image_size: int) -> str:
    parameters = [DRAWING_VERSION, image_size, dataclasses.asdict(faces)]
    return hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:16]


def _write_images(root: Path, plan: list[PlannedImage], seed: int, image_size: int) -> None:
    """Draw into a folder of our own and rename it; of several processes the first one wins."""
    partial = root.with_name(f".{root.name}.{uuid.uuid4().hex}.tmp")
    try:
        for image in plan:
            path = partial / image.image_path
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = draw_face(
                image.identity,
                image.expression,
                image.age,
                seed=seed,
                nuisance_seed=image.nuisance_seed,
                image_size=image_size,
            )
            Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(path)
        # Fails where another process was faster: a folder that is not empty is never replaced.
        with contextlib.suppress(OSError):
            os.rename(partial, root)
    except OSError as err:
        raise DataError(
            f"The drawn faces cannot be written to {root.parent} ({err.strerror}): "
            "give data.cache_dir or $DLFD_CACHE a folder that can be written and has room."
        ) from err
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    if not root.is_dir():
        raise DataError(f"The drawn faces cannot be moved to {root}: give another data.cache_dir.")
