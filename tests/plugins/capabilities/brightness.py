"""A figure for pictures, beside those that they have: how bright they are."""

import anylatent as al


@al.register("metric", "brightness")
class Brightness(al.Metric):
    """The mean value of pictures, and how far restored ones are from theirs."""

    modality = "image"

    def __init__(self, data: al.Data, scale: float = 1.0) -> None:
        self.data, self.scale = data, scale

    @property
    def notes(self):
        return [f"brightness: the mean of all pixels, from -1 to 1, times {self.scale:g}."]

    def samples(self, outputs, columns):
        return {"brightness": self.scale * float(outputs.tensor.mean())}

    def reconstructions(self, originals, outputs):
        gap = (outputs.tensor - originals.tensor).mean((1, 2, 3))
        return {"brightness_off": self.scale * float(gap.abs().mean())}

    def baselines(self, conditions=()):
        dataset = self.data.held_out()
        values = [float(dataset[i]["image"].mean()) for i in range(len(dataset))]
        return {"held-out": {"brightness": self.scale * sum(values) / len(values)}}
