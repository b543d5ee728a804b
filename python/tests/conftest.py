"""One torch thread: the models are tiny, and threads that wait for each other take a loaded machine
a hundred times as long. (`torch` is looked up, not imported: it is an extra.)"""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("torch") is not None:
    import torch

    torch.set_num_threads(1)
