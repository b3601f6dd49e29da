"""The video modality: importing it registers its parts."""

from anylatent.core.registry import register
from anylatent.modalities.video.autoencoder import FramesAutoencoder
from anylatent.modalities.video.backbone import Inflated
from anylatent.modalities.video.conditioner import ClipConditioner
from anylatent.modalities.video.critic import PatchDiscriminator3d
from anylatent.modalities.video.data import (
    AnimatedEmoji,
    Footage,
    MovingMnist,
    Stills,
    VideoFolder,
)
from anylatent.modalities.video.metrics import (
    ClipDistances,
    ClipRestoration,
    Coherence,
    CompletionFigures,
    Legibility,
    MotionAsked,
)
from anylatent.modalities.video.modality import VideoModality
from anylatent.modalities.video.pyramid import Pyramid
from anylatent.modalities.video.tuning import TemporalTuning

READER = {"reader": ("reader", "decord")}
FRAMES = {"image": ("autoencoder", "conv"), "adversary": ("adversary", "none")}

register("modality", "video")(VideoModality)
register("data", "moving_mnist")(MovingMnist)
register("data", "footage", parts=READER)(Footage)
register("data", "animated_emoji")(AnimatedEmoji)
register("data", "video_folder", parts=READER)(VideoFolder)
register("data", "stills", parts={"pictures": ("data", "openmoji")})(Stills)
register("autoencoder", "frames", parts=FRAMES)(FramesAutoencoder)
register("autoencoder", "pyramid", parts={"frames": ("autoencoder", "frames")})(Pyramid)
register("adversary", "patch3d")(PatchDiscriminator3d)
register("backbone", "video_unet", parts={"image": ("backbone", "unet")})(Inflated)
register("backbone", "video_dit", parts={"image": ("backbone", "dit")})(Inflated)
register("conditioner", "clip", parts={"about": ("conditioner", "none")})(ClipConditioner)
register("tuning", "temporal")(TemporalTuning)
register("metric", "clip_distances")(ClipDistances)
register("metric", "clip_coherence")(Coherence)
register("metric", "clips_restored")(ClipRestoration)
register("metric", "clip_completions")(CompletionFigures)
register("metric", "clip_legibility")(Legibility)
register("metric", "clip_motion_asked")(MotionAsked)
