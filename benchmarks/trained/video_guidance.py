"""A caption and a first frame that contradict one another, each with a scale of its own.

    python benchmarks/trained/video_guidance.py runs/captioned --n 64 --out video_guidance.png

The run is of one moving digit, with conditioner=clip, conditioner.about=caption and
conditioner.also=[first]. Each sample is told the first frame of a held-out clip and the caption of
another digit, at the same seed for all scales. The first frame is a condition alone: it is not put
into the sample, as `anylatent sample` does, so that what a scale of it does is seen.

Prints by scales: how often a classifier of real digits names the digit of the caption, and that of
the first frame, in the frames after the first, of which it sees the 28 pixels around the centre of
brightness; and the PSNR of frame 0 to the first frame, of the mean squared error of all samples.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image, ImageDraw

import anylatent as al
from anylatent.core.registry.building import build
from anylatent.core.reports.evaluation import table
from anylatent.core.runs.drawing import blank
from anylatent.core.support.files import replacing
from anylatent.modalities.image.metrics import references_of
from anylatent.modalities.shared.image_features import features
from anylatent.modalities.shared.restoration import decibels, mse
from anylatent.modalities.video.clips import Clips
from anylatent.modalities.video.metrics.guesses import centre

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SCALES = ((1, 1), (3, 0), (3, 1), (1, 3), (0, 3))
SHOWN, HEAD = 4, 16


def sampled(run, first, captions, scales, seed, batch=32):
    """Clips under captions and first frames, with the scales of either."""
    told = {"name": "classifier_free", "scale": 1.0}
    told["scales"] = dict(zip(("caption", "first"), map(float, scales), strict=True))
    sampler, system, made = run.sampler(guidance=told), run.system, []
    for start in range(0, len(captions), batch):
        rows = range(start, min(start + batch, len(captions)))
        noise = al.Noise([(seed, row) for row in rows])
        columns = {
            "caption": [captions[row] for row in rows],
            "first": first[rows.start : rows.stop],
        }
        start_at, cond = blank(system, noise, {}), system.condition(columns)
        with torch.no_grad():
            made.append(system.decode(system.generator.sample(start_at, cond, sampler, noise)))
    return Clips.join(made).to("cpu")


def crops(frames):
    """The 28 × 28 pixels around the centre of brightness of frames (N, 1, H, W)."""
    places = (centre(frames) - 13.5).round().long()
    places = places.clamp(min=0).minimum(torch.tensor(frames.shape[-2:]) - 28).tolist()
    pairs = zip(frames, places, strict=True)
    return torch.stack([f[:, top : top + 28, left : left + 28] for f, (top, left) in pairs])


def figures(clips, first, captioned, own, judge):
    """How often either digit is named after frame 0, and how near that is to the first frame."""
    later = crops(clips.frames[:, 1:].flatten(0, 1))
    named = judge(later, features(later)).argmax(1).view(len(clips), -1)
    return {
        "digit of the caption": float((named == captioned[:, None]).double().mean()),
        "digit of the first frame": float((named == own[:, None]).double().mean()),
        "PSNR of frame 0, dB": float(decibels(mse(first, clips.frames[:, 0]).mean())),
    }


def sheet(real, rows, captions, path):
    """Held-out clips above what is made of their first frames under each pair of scales."""
    given = torch.zeros(SHOWN, real.frames.shape[1], dtype=torch.bool)
    given[:, 0] = True
    top = Clips(real.frames[:SHOWN], real.lengths[:SHOWN], real.rate, given)
    labels = ["held-out clip", *(f"caption {a}, first {b}" for a, b in rows)]
    whole = Clips.join([top, *(clips[:SHOWN] for clips in rows.values())]).show(SHOWN, labels)
    picture = Image.new("RGB", (whole.width, whole.height + HEAD), "white")
    picture.paste(whole, (0, HEAD))
    step = real.frames.shape[1] * (real.frames.shape[-1] + 2) + 4
    left = whole.width - SHOWN * step
    for k, caption in enumerate(captions[:SHOWN]):
        ImageDraw.Draw(picture).text((left + k * step, 2), f"asked: {caption}", fill="black")
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run")
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("video_guidance.png"))
    options = parser.parse_args()
    run = al.load(options.run)
    data = build("data", run.config.data)
    part = data.held_out()
    items = [part[i] for i in range(min(options.n, len(part)))]
    real = Clips(torch.stack([item["video"] for item in items]), None, data.rate)
    own = torch.stack([item["digits"][0] for item in items])
    captioned = (own + 1 + torch.arange(len(own)) % 9) % 10  # each of the nine others in turn
    captions, first = [f"a {NAMES[k]}" for k in captioned.tolist()], real.frames[:, 0]
    judge = references_of(data.digits, 1000).classifiers["digit"]
    rows = {pair: sampled(run, first, captions, pair, options.seed) for pair in SCALES}
    sheet(real, rows, captions, options.out)
    found = {
        f"caption {a}, first {b}": figures(clips, first, captioned, own, judge)
        for (a, b), clips in rows.items()
    }
    print(table({**found, "held-out clips": figures(real, first, captioned, own, judge)}))


if __name__ == "__main__":
    main()
