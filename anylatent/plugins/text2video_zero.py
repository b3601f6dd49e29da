"""Text2Video-Zero (2303.13439): a model of pictures draws clips, and nothing is trained.

All frames of a clip begin as one picture, in the same noise. Some steps down, at the log-SNR
`warped`, what is there is moved from frame to frame, and the forward process takes it back up to
`apart`, where the frames part with noise of their own:

    x_k = (α/α') W_k(x') + (σ² − (α/α')² σ'²)^½ noise_k,  x' at `warped`, α and σ at `apart`

From there on every frame attends to the first one, in place of itself, and so shows the same thing.
The paper's times, 941 and 881 of 1000, are log-SNRs of about -4.7 and -4.1, of latents with 64
pixels a side; with 8 a side as much is decided at 2 log(64/8) = 4.2 more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import anylatent as al


class ToTheFirst(al.Guest):  # type: ignore[misc]
    """Entries of all frames read keys and values of the first frame of their clip, where they would
    read those of their own; what they read of a context stays."""

    def __init__(self, frames: int = 1) -> None:
        super().__init__()
        self.frames = frames

    def begin(self, x: al.Latent, c_noise: Tensor, cond: al.Condition | None) -> ToTheFirst:
        return ToTheFirst(x.entries)

    def attend(
        self,
        site: al.Site,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        attend: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor],
    ) -> Tensor:
        if site.name.rpartition(".")[2] == "cross":
            return attend(q, k, v, mask)
        first = None if mask is None else self._first(mask)
        return attend(q, self._first(k), self._first(v), first)

    def _first(self, x: Tensor) -> Tensor:
        clips = torch.unflatten(x, 0, (-1, self.frames))
        return clips[:, :1].expand_as(clips).flatten(0, 1)


@al.register("generator", "text2video_zero")
class Text2VideoZero(al.Diffusion):  # type: ignore[misc]
    """Clips of a model of pictures: `from=` a run of pictures, and nothing is trained.

    From frame to frame what is shown moves `right` and `down`, in pixels of the latent, to whole
    pixels, mirrored at the edges; at which log-SNR is `warped`, and from which frames are on their
    own is `apart`, each at the nearest time of the sampler's grid. Raises ValueError for a denoiser
    whose backbone does not see frames as pictures of their own.
    """

    def __init__(
        self,
        denoiser: al.Denoiser,
        objective: al.Objective,
        *,
        right: float = 0.25,
        down: float = 0.0,
        apart: float = -0.5,
        warped: float = 0.1,
    ) -> None:
        super().__init__(denoiser, objective)
        if not warped > apart:
            raise ValueError(
                f"generator.warped={warped:g} is a log-SNR above generator.apart={apart:g}: frames "
                "are moved where less noise is left than where they part"
            )
        if not (isinstance(denoiser, al.Preconditioned) and denoiser.backbone.apart):
            raise ValueError(
                "generator=text2video_zero needs the frames of clips as pictures of their own: "
                "denoiser=preconditioned, and backbone=video_unet or video_dit"
            )
        denoiser.backbone = al.Hosting(denoiser.backbone, ToTheFirst())
        self.right, self.down, self.apart, self.warped = right, down, apart, warped

    @torch.no_grad()
    def sample(
        self,
        blank: al.Latent,
        cond: al.Condition | None,
        sampler: al.Sampler,
        noise: al.Noise,
        callback: Callable[[int, Tensor, al.Latent], None] | None = None,
    ) -> al.Latent:
        """Clips whose frames share one start; from a start that is given, as they are."""
        if sampler.start is not None:
            return super().sample(blank, cond, sampler, noise, callback)
        schedule = self.schedule
        denoise = sampler.around(self.denoiser, noise).bind(cond)
        times = sampler.grid(schedule, sampler.steps)
        apart, warped = self._places(times)

        def solved(x: al.Latent, first: int, last: int, called: Any = None) -> al.Latent:
            some = times[first : last + 1]
            if len(some) < 2:
                return x
            return al.solve(sampler.solver, denoise, schedule, x, some, noise, called)

        start = schedule.sigma(times[0]) * noise.like(blank).map(_of_first)
        parted = solved(start, 0, apart, callback)
        down = solved(parted, apart, warped).map(self._moved)
        back = self._noised(down, times[warped], times[apart], noise)
        clips = back.map(lambda x, own: torch.cat((own[:, :1], x[:, 1:]), 1), parted)
        return solved(clips.project(), apart, sampler.steps, callback)

    def invert(self, *told: Any, **more: Any) -> al.Latent:
        raise ValueError(
            "generator=text2video_zero draws the frames of a clip from one another: no noise leads "
            "to given ones. Invert single frames with the run of pictures"
        )

    def nats(self, *told: Any, **more: Any) -> tuple[Tensor, al.Latent]:
        raise ValueError(
            "generator=text2video_zero has no likelihood of clips: their frames are drawn from one "
            "another. The run of pictures has one, of single frames"
        )

    def _places(self, times: Tensor) -> tuple[int, int]:
        """The steps of a grid after which frames part, and are moved, one step later at least.
        Raises ValueError for a grid of one step."""
        if len(times) < 3:
            raise ValueError("generator=text2video_zero needs two steps or more: give steps=20")
        levels = self.schedule.log_snr(times[:-1])
        apart = int((levels[:-1] - self.apart).abs().argmin())
        warped = int((levels - self.warped).abs().argmin())
        return apart, max(warped, apart + 1)

    def _moved(self, x: Tensor) -> Tensor:
        """The first of the frames (B, T, C, H, W) in each place, moved as far as that frame is."""
        frames = [
            x[:, 0][..., _mirrored(x.shape[-2], k * self.down), :][..., _mirrored(x.shape[-1], way)]
            for k, way in enumerate(k * self.right for k in range(x.shape[1]))
        ]
        return torch.stack(frames, 1)

    def _noised(self, x: al.Latent, s: Tensor, t: Tensor, noise: al.Noise) -> al.Latent:
        """From time s up to t > s, by the forward process."""
        schedule = self.schedule
        kept = schedule.alpha(t) / schedule.alpha(s)
        fresh = (schedule.sigma(t) ** 2 - kept**2 * schedule.sigma(s) ** 2).clamp(min=0).sqrt()
        found: al.Latent = al.combine((kept, x), (fresh, noise.like(x)))
        return found


def _of_first(x: Tensor) -> Tensor:
    return x[:, :1].expand_as(x).contiguous()


def _mirrored(size: int, way: float) -> Tensor:
    """Where what is at 0 ... size − 1 comes from, moved by whole pixels and mirrored at the
    edges."""
    places = torch.arange(size) - round(way)
    period = max(1, 2 * (size - 1))
    places = places % period
    return torch.minimum(places, period - places)
