"""One intra-op thread for the trainings of this folder, so that device and CPU add up in the same order."""

import pytest


@pytest.fixture(scope="module")
def one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
