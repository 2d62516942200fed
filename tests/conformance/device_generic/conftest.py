"""Names the classes of openreg after it (TestViewsOPENREG) from the first file on, whichever file comes first.

torch's PrivateUse1TestBase learns the device's name when its first class is set up, and is `PRIVATEUSE1` until then.
"""

import torch_openreg  # noqa: F401  (before torch.testing looks for devices)
from torch.testing._internal.common_device_type import PrivateUse1TestBase

PrivateUse1TestBase.setUpClass()
