"""A stage of a plugin, in one file: what clean latents and noise tell of a label, side by side."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import anylatent as al


@al.register("stage", "two_probes")
class TwoProbes(al.Stage):
    """Two linear classifiers with an optimiser each: of latents, and of as much noise (a floor)."""

    name = "two_probes"
    further = True

    def __init__(self, training, settings):
        super().__init__(training, settings)
        (self.label_column,) = training.data.classes
        size = self.system.autoencoder.spec.blank(1).dim.int().item()
        classes = len(training.data.classes[self.label_column])
        self.probes = {name: nn.Linear(size, classes) for name in ("latents", "noise")}

    def networks(self):
        return self.probes

    def optimisers(self):
        return {name: probe.parameters() for name, probe in self.probes.items()}

    def dataset(self):
        return self.training.data.train()

    def collate(self, items):
        return dict(self.system.modality.collate(items))

    def step(self, batch, noise, number, descend):
        with torch.no_grad():
            z = self.system.normaliser.encode(self.system.autoencoder.encode(batch).mean)
        terms = {}
        for name, latent in (("latents", z), ("noise", noise.like(z))):
            flat = torch.cat([x.flatten(1) for x in latent.parts.values()], 1)
            loss = cross_entropy(self.probes[name](flat), batch[self.label_column].to(flat.device))
            descend(name, loss)
            terms[name] = loss
        return {"loss": sum(terms.values()), **terms}

    def finish(self):
        folder = self.training.directory.path / "probes"
        folder.mkdir(exist_ok=True)
        for name, probe in self.probes.items():
            torch.save(probe.state_dict(), folder / f"{name}.pt")
