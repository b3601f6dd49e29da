"""Clips that are longer than what a run was trained on: memory, seams and drift.

    python benchmarks/trained/long_clips.py runs/digits [--window 16 --context 5 --n 32]
        [--kind windows|rolling] [--frames 96]

Samples are drawn with a generator around the run's own. Prints: the most memory of a fresh process
that draws two clips of 32 and of so many frames, and of one that only decodes 32 and 256 latents;
the warping error (optical flow, of 255) of consecutive frames across the seams of windows and
within them; and brightness and contrast, of 255, of the new frames of each window.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch

import anylatent as al
from anylatent.core.reports.evaluation import table
from anylatent.modalities.video.clips import to_bytes
from anylatent.modalities.video.flow import flows, small, warp


def peak():
    """MB of this process at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def node(told):
    return {"name": told.kind, "window": told.window, "context": told.context}


def draw(told, frames, n):
    run = al.load(told.run, generator=node(told))
    return run.sample(n, cond={"frames": frames}, batch=told.batch)


def decode(told, frames):
    run = al.load(told.run)
    spec = run.system.autoencoder.spec
    z = al.Noise([0]).like(spec.blank(1, torch.tensor([frames])))
    run.system.decode(z)


def alone(told, what, frames):
    """The peak of a fresh process that does one thing."""
    told = [told.run, "--window", told.window, "--context", told.context, "--kind", told.kind]
    command = [sys.executable, __file__, *map(str, told), "--only", what, "--frames", str(frames)]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))


def seams(told):
    """Whether there is a seam before each frame, from the second on."""
    step = told.window - told.context
    starts = list(range(told.window, told.frames, step))
    return torch.tensor([frame in starts for frame in range(1, told.frames)])


def measured(told):
    clips = draw(told, told.frames, told.n)
    warping, brightness, contrast = [], [], []
    for clip in clips.frames:
        pixels = small(to_bytes(clip).movedim(-1, -3))
        before, after = pixels[:-1].float(), pixels[1:].float()
        warping.append((before - warp(after, flows(pixels))).abs().mean((1, 2, 3)))
        brightness.append(pixels.float().mean((1, 2, 3)))
        contrast.append(pixels.float().std((1, 2, 3)))
    return clips, *(torch.stack(rows) for rows in (warping, brightness, contrast))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run")
    parser.add_argument("--kind", default="windows", choices=("windows", "rolling"))
    parser.add_argument("--window", type=int, default=16)
    parser.add_argument("--context", type=int, default=5)
    parser.add_argument("--frames", type=int, default=96)
    parser.add_argument("--n", type=int, default=32)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--only", choices=("draw", "decode"))
    parser.add_argument("--sheet", type=Path)
    told = parser.parse_args()
    if told.only:
        if told.only == "draw":
            draw(told, told.frames, 2)
        else:
            decode(told, told.frames)
        print(json.dumps(peak()))
        return
    rows = {}
    for what, few, many in (("draw", 32, told.frames), ("decode", 32, 256)):
        pair = [alone(told, what, frames) for frames in (few, many)]
        rows[what] = {"MB": pair[0], f"MB_of_{many}": pair[1], "ratio": pair[1] / pair[0]}
    print(table(rows))
    clips, warping, brightness, contrast = measured(told)
    at = seams(told)
    across, within = warping[:, at], warping[:, ~at]
    ratio = float(across.mean() / within.mean())
    figures = {"across": float(across.mean()), "within": float(within.mean()), "ratio": ratio}
    print(table({"warping error": figures}))
    ends = [0, *range(told.window, told.frames, told.window - told.context), told.frames]
    drift = {
        f"frames {a} to {b - 1}": {
            "brightness": float(brightness[:, a:b].mean()),
            "contrast": float(contrast[:, a:b].mean()),
        }
        for a, b in zip(ends, ends[1:], strict=False)
        if b > a
    }
    print(table(drift))
    if told.sheet is not None:
        clips[:4].show().save(told.sheet)


if __name__ == "__main__":
    main()
