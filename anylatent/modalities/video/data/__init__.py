"""Data sets of clips: bouncing digits, footage, animated emoji, any folder, and pictures."""

from anylatent.modalities.video.data.animated_emoji import AnimatedEmoji
from anylatent.modalities.video.data.footage import Footage
from anylatent.modalities.video.data.moving_mnist import MovingMnist
from anylatent.modalities.video.data.readers import Reader
from anylatent.modalities.video.data.stills import Stills
from anylatent.modalities.video.data.video_folder import VideoFolder

__all__ = ["AnimatedEmoji", "Footage", "MovingMnist", "Reader", "Stills", "VideoFolder"]
