"""Ball-and-stick pictures: spheres and cylinders, orthographic, by a depth buffer in numpy.

Every pixel keeps the nearest surface: its depth, normal and colour. Light comes last, once for the
whole picture: diffuse and specular from the upper left, darkening beside nearer surfaces (the
depth buffer minus its blur, Luft et al. 2006), lines where the depth jumps, and a haze that grows
with the distance.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from anylatent.modalities.molecule.molecule import Molecule

if TYPE_CHECKING:
    from PIL import Image

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

COLOURS = {
    1: (238, 238, 238),
    5: (255, 170, 140),
    6: (86, 90, 96),
    7: (56, 92, 214),
    8: (222, 48, 40),
    9: (110, 205, 80),
    14: (222, 190, 140),
    15: (255, 140, 20),
    16: (240, 205, 50),
    17: (50, 180, 60),
    35: (150, 55, 40),
    53: (130, 40, 150),
}
"""CPK colours by atomic number."""

_OTHER = (235, 105, 180)
_RADII = {1: 0.27, 6: 0.40, 7: 0.38, 8: 0.37, 9: 0.35}
_RADIUS, _STICK = 0.45, 0.115  # Å
_FARTHEST = 1e4  # Å: atoms beyond are as good as lost
_LIGHT = np.array([-0.421, 0.551, 0.721], np.float32)  # unit vectors: to the light,
_HALF = np.array([-0.227, 0.297, 0.928], np.float32)  # and half-way between it and the viewer
_TILT = (0.26, -0.20)  # radians about y and x, so that no atom hides exactly behind another
_LARGEST = 0.21  # of the width per Å: a water molecule does not fill the picture
_SMOOTH = 2  # pixels drawn for one shown, each way


def present(molecule: Molecule) -> Molecule:
    """The atoms with finite positions within 10,000 Å of the origin."""
    good = (molecule.x.isfinite() & (molecule.x.abs() < _FARTHEST)).all(1)
    return Molecule(molecule.x[good], molecule.z[good], molecule.charge[good])


def principal_view(molecule: Molecule) -> tuple[Tensor, Tensor]:
    """Rotation (3, 3) and centre (3,), float64: the widest plane faces the viewer.

    The longest axis lies from left to right, the second upwards, and a slight tilt shows what lies
    behind. It is a rotation, never a mirror: handedness is kept.
    """
    x = present(molecule).x.double()
    if not len(x):
        return torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    centre = x.mean(0)
    axes = torch.linalg.svd(x - centre)[2]
    axes = axes * torch.where(axes.sum(1, keepdim=True) < 0, -1.0, 1.0)
    axes = torch.stack([axes[0], axes[1], torch.linalg.cross(axes[0], axes[1])])
    return _tilt(*_TILT) @ axes, centre


def _tilt(about_y: float, about_x: float) -> Tensor:
    (c, s), (d, t) = ((np.cos(angle), np.sin(angle)) for angle in (about_y, about_x))
    first = torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]], dtype=torch.float64)
    return torch.tensor([[1, 0, 0], [0, d, -t], [0, t, d]], dtype=torch.float64) @ first


def ball_and_stick(
    molecule: Molecule,
    width: int,
    height: int,
    view: tuple[Tensor, Tensor] | None = None,
    scale: float | None = None,
) -> Image.Image:
    """One molecule on white, from `view` (its own principal one if not given).

    Atoms that are nowhere (NaN, infinite, beyond 10,000 Å) are left out. `scale` is in pixels per
    Å; if not given, the molecule fills the picture, but small ones are not blown up.
    """
    from PIL import Image

    shown = present(molecule)
    rotation, centre = view or principal_view(molecule)
    x = ((shown.x.double() - centre) @ rotation.T).numpy()
    scale = (scale or fitting_scale(x, width, height)) * _SMOOTH
    canvas = _Canvas(width * _SMOOTH, height * _SMOOTH, scale)
    for position, number in zip(x, shown.z.tolist(), strict=True):
        canvas.sphere(position, _radius(number, scale), COLOURS.get(number, _OTHER))
    for a, b, shift, radius in _sticks(shown, x):
        colours = [COLOURS.get(int(shown.z[i]), _OTHER) for i in (a, b)]
        canvas.stick(x[a] + shift, x[b] + shift, radius, colours)
    pixels = (canvas.shade() * 255).round().astype(np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX)


def _radius(number: int, scale: float) -> float:
    return max(_RADII.get(number, _RADIUS), 2.5 / scale)


def fitting_scale(x: Array, width: int, height: int) -> float:
    """Pixels per Å at which all atoms of a picture centred on the origin are inside."""
    largest = _LARGEST * width
    if not len(x):
        return largest
    reach = np.abs(x[:, :2]).max(0) + 0.5
    return float(min(largest, 0.47 * width / reach[0], 0.47 * height / reach[1]))


def _sticks(molecule: Molecule, x: Array) -> Iterator[tuple[int, int, Array, float]]:
    """Two atoms, a shift and a radius for each stick: double bonds are two side by side.

    Where atoms crowd, the shortest bonds alone are drawn, four for each atom.
    """
    from anylatent.modalities.molecule.perception import table_bonds

    if len(molecule) < 2:
        return
    orders = table_bonds(molecule)
    bonds = orders.triu(1).nonzero()
    lengths = (molecule.x[bonds[:, 0]] - molecule.x[bonds[:, 1]]).norm(dim=1)
    for a, b in bonds[lengths.argsort()[: 4 * len(molecule)]].tolist():
        count = int(orders[a, b])
        across = np.cross(x[b] - x[a], [0.0, 0.0, 1.0])
        length = float(np.linalg.norm(across))
        across = across / length if length > 1e-6 else np.array([1.0, 0.0, 0.0])
        gap, radius = {1: (0.0, _STICK), 2: (0.19, 0.075)}.get(count, (0.19, 0.06))
        for k in range(count):
            yield a, b, across * gap * (k - (count - 1) / 2), radius


class _Canvas:
    """The nearest surface in each pixel, in Å with y upwards and z towards the viewer."""

    def __init__(self, width: int, height: int, scale: float) -> None:
        self.scale = scale
        self.depth = np.full((height, width), -np.inf, np.float32)
        self.normal = np.zeros((height, width, 3), np.float32)
        self.colour = np.ones((height, width, 3), np.float32)
        self.xs = (np.arange(width) + 0.5 - width / 2) / scale
        self.ys = (height / 2 - np.arange(height) - 0.5) / scale

    def _window(self, low: Array, high: Array) -> tuple[slice, slice]:
        rows = np.searchsorted(-self.ys, [-high[1], -low[1]])
        columns = np.searchsorted(self.xs, [low[0], high[0]])
        return slice(*rows), slice(*columns)

    def sphere(self, centre: Array, radius: float, colour: tuple[int, int, int]) -> None:
        window = self._window(centre - radius, centre + radius)
        dy, dx = self.ys[window[0], None] - centre[1], self.xs[None, window[1]] - centre[0]
        square = radius**2 - dx**2 - dy**2
        dz = np.sqrt(np.maximum(square, 0))
        normal = np.stack(np.broadcast_arrays(dx, dy, dz), -1) / radius
        self._put(window, square > 0, centre[2] + dz, normal, np.array(colour) / 255)

    def stick(self, a: Array, b: Array, radius: float, colours: list[tuple[int, int, int]]) -> None:
        """A cylinder from a to b, half of it in each colour; its ends are inside the balls."""
        length = float(np.linalg.norm(b - a))
        if length < 1e-6:
            return
        u = (b - a) / length
        slant = 1 - u[2] ** 2
        if slant < 1e-6:  # seen end on, behind a ball
            return
        window = self._window(np.minimum(a, b) - radius, np.maximum(a, b) + radius)
        dy, dx = self.ys[window[0], None] - a[1], self.xs[None, window[1]] - a[0]
        c = dx * u[0] + dy * u[1]
        square = (u[2] * c) ** 2 - slant * (dx**2 + dy**2 - c**2 - radius**2)
        t = (u[2] * c + np.sqrt(np.maximum(square, 0))) / slant
        along = c + t * u[2]
        point = np.stack(np.broadcast_arrays(dx, dy, t), -1)
        normal = (point - along[..., None] * u) / radius
        near, far = (np.array(colour) / 255 for colour in colours)
        colour = np.where((along < length / 2)[..., None], near, far)
        hit = (square > 0) & (along >= 0) & (along <= length)
        self._put(window, hit, a[2] + t, normal, colour)

    def _put(
        self, window: tuple[slice, slice], hit: Array, depth: Array, normal: Array, colour: Array
    ) -> None:
        nearer = hit & (depth > self.depth[window])
        self.depth[window][nearer] = depth[nearer]
        self.normal[window][nearer] = normal[nearer]
        self.colour[window][nearer] = np.broadcast_to(colour, normal.shape)[nearer]

    def shade(self) -> Array:
        """The picture (H, W, 3) in [0, 1]."""
        picture = np.ones_like(self.colour)
        there = np.isfinite(self.depth)
        if not there.any():
            return picture
        low, high = self.depth[there].min(), self.depth[there].max()
        depth = np.where(there, self.depth, low - 0.6)
        hollow = np.clip(_blurred(depth, 0.35 * self.scale) - depth, 0, 0.8)[there][:, None]
        edge, depth, normal = (
            _edges(depth)[there][:, None],
            depth[there][:, None],
            self.normal[there],
        )
        diffuse = np.clip(normal @ _LIGHT, 0, 1)[:, None]
        gloss = 0.45 * np.clip(normal @ _HALF, 0, 1)[:, None] ** 48
        light = (0.50 + 0.62 * diffuse) * (1 - 0.55 * hollow)
        colour = np.clip(self.colour[there] * light, 0, 1) * (1 - gloss) + gloss
        haze = 0.35 * (high - depth) / max(high - low, 4.0)
        picture[there] = (colour + (1 - colour) * haze) * (1 - 0.75 * edge)
        return picture


def _blurred(depth: Array, radius: float) -> Array:
    """A Gaussian blur, through eight-bit steps of which there are enough for shadows."""
    from PIL import Image, ImageFilter

    low, high = float(depth.min()), float(depth.max())
    span = max(high - low, 1e-6)
    picture = Image.fromarray(((depth - low) / span * 255).astype(np.uint8))
    blurred = picture.filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(blurred).astype(float) / 255 * span + low


def _edges(depth: Array) -> Array:
    """How much nearer each pixel is than a neighbour, from 0 to 1 (0.35 Å and more)."""
    jump = np.zeros_like(depth)
    for axis in (0, 1):
        step = np.diff(depth, axis=axis)
        ahead, behind = [(0, 0), (0, 0)], [(0, 0), (0, 0)]
        ahead[axis], behind[axis] = (0, 1), (1, 0)
        jump = np.maximum(jump, np.pad(-step, ahead))
        jump = np.maximum(jump, np.pad(step, behind))
    return np.clip((jump - 0.12) / 0.23, 0, 1)
