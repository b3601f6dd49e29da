"""Conditioners of a plugin, in one file: a picture that hints at another, read in three ways."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

import anylatent as al


class FromPicture(al.Conditioner):
    """Reads the column `image`: tensors in [-1, 1], or paths of files as a user gives them."""

    def __init__(self, shape: Sequence[int] = (1, 16, 16)):
        super().__init__()
        self.shape, self.columns = tuple(shape), ("image",)

    def pictures(self, columns):
        """(B, C, H, W), and which there are; None without the column."""
        if columns and "image" not in columns:
            raise ValueError(f"the condition is made of 'image', got {', '.join(columns)}")
        entries = list(columns.get("image", ()))
        kept = torch.tensor([entry is not None for entry in entries])
        return [self._picture(entry) for entry in entries], kept

    def _picture(self, entry):
        if entry is None:
            return torch.zeros(self.shape)
        if isinstance(entry, str):
            picture = Image.open(entry).convert("L").resize(self.shape[1:])
            entry = torch.tensor(list(picture.getdata())) / 127.5 - 1
        return torch.as_tensor(entry).reshape(self.shape)


@al.register("conditioner", "thumbnail")
class Thumbnail(FromPicture):
    """A small picture, of which each step of training sees another part, read by a network.

    The map `hint`, and the scalar `ink`, of one column. `cut`: the side of the hole, in pixels.
    """

    def __init__(self, shape: Sequence[int] = (1, 16, 16), *, side: int = 4, cut: int = 2):
        super().__init__(shape)
        self.side, self.cut = side, cut
        self.spec = al.ConditionSpec(maps={"hint": 2}, scalars=("ink",))
        self.network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 2, 1))
        self.brightness = nn.Linear(1, 1)

    def forward(self, columns):
        pictures, kept = self.pictures(columns)
        if not pictures:
            return al.Condition()
        small = adaptive_avg_pool2d(torch.stack(pictures), self.side)
        return al.Condition({"small": small}, {"small": kept})

    def vary(self, cond, noise):
        small = cond.values["small"]
        corner = (noise.uniform(2) * (self.side - self.cut + 1)).long().to(small.device)
        places = torch.arange(self.side, device=small.device)
        row, column = ((places >= c) & (places < c + self.cut) for c in corner.T[:, :, None])
        hole = row[:, None, :, None] & column[:, None, None, :]
        return al.Condition({"small": small.masked_fill(hole, 0)}, cond.keep)

    def learned(self, cond):
        small, kept = cond.values["small"], cond.keep["small"]
        ink = self.brightness(small.mean((1, 2, 3))[:, None])[:, 0]
        return al.Condition({"hint": self.network(small), "ink": ink}, {"hint": kept, "ink": kept})


@al.register("conditioner", "blurred")
class Blurred(FromPicture):
    """The latent of a blurred picture, by the run's own autoencoder, laid over the channels."""

    def __init__(
        self,
        shape: Sequence[int] = (1, 16, 16),
        autoencoder: al.LatentEncoder | None = None,
        *,
        pixels: int = 4,
    ):
        super().__init__(shape)
        if autoencoder is None:
            raise ValueError("a picture is encoded by an autoencoder: give one")
        self.encode, self.pixels = autoencoder, pixels
        self.spec = al.ConditionSpec(maps={"source": autoencoder.spec.fields["z"].shape[0]})

    def forward(self, columns):
        pictures, kept = self.pictures(columns)
        if not pictures:
            return al.Condition()
        image = interpolate(adaptive_avg_pool2d(torch.stack(pictures), self.pixels), self.shape[1:])
        return al.Condition({"source": self.encode({"image": image})["z"]}, {"source": kept})
