import pytest
import torch


@pytest.fixture(scope="session")
def shared_decoder():
    """One process that reads videos, for all tests: it takes seconds to start."""
    from anylatent.modalities.video.data.decoding import Decoder

    with Decoder(seconds=60) as decoder:
        yield decoder


@pytest.fixture
def decoder(shared_decoder, monkeypatch):
    """That process also for data sets and clips; its `read` and `length` note what was asked."""
    from anylatent.modalities.video.data import decoding, files
    from anylatent.modalities.video.data.decoding import Decoder

    asked = []

    class Shared(Decoder):
        def __init__(self, reader=None, seconds=60.0):
            super().__init__(reader, seconds)
            self._child = shared_decoder._child

        def __exit__(self, *_):
            """The process goes on."""

        def length(self, path):
            asked.append(path.name)
            return super().length(path)

        def read(self, path, wanted):
            asked.append(path.name)
            return super().read(path, wanted)

    for module in (decoding, files):
        monkeypatch.setattr(module, "Decoder", Shared)
    Shared.asked = asked
    return Shared


@pytest.fixture
def own_cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("ANYLATENT_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def bouncing():
    """A data set of bouncing digits, 24 of its held-out clips, and where which digits are."""
    from anylatent.core.support.packages import MissingPackage
    from anylatent.modalities.video.clips import Clips
    from anylatent.modalities.video.data import MovingMnist

    try:
        data = MovingMnist(clips=64, most=24)
    except MissingPackage as error:
        pytest.skip(str(error))
    part = data.held_out()
    items = [part[i] for i in range(24)]
    columns = {name: [item[name] for item in items] for name in ("places", "digits")}
    return data, Clips(torch.stack([item["video"] for item in items])), columns
