"""One call's outcome as a value: what it returned or raised, when, and what it warned about; and how two errors compare.

Errors and warnings are compared by type and by text, with what names a device, an address or a kernel left out.
"""

import re
import warnings
from dataclasses import dataclass, field

import torch

from .compare import Mismatch

DEVICE_NAMES = ("cpu", "cuda", "meta", "PrivateUse1")


@dataclass
class Attempt:
    """What a call did. `late`: the error came when the device was waited for, after the call had returned."""

    value: object = None
    error: Exception | None = None
    late: bool = False
    warned: tuple[str, ...] = ()
    random: bool = field(default=False, compare=False)


def attempt(call, wait=None) -> Attempt:
    """Runs `call()`. With `wait`, waits for the device afterwards when the call raised nothing."""
    outcome = Attempt()
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # a warning that PyTorch gives once for each process would belong to whoever calls first
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            outcome.value = call()
        except Exception as error:
            outcome.error = error
        if outcome.error is None and wait is not None:
            try:
                wait()
            except Exception as error:
                outcome.error, outcome.late = error, True
    torch.set_warn_always(always)
    outcome.warned = tuple(f"{item.category.__name__}: {item.message}" for item in caught)
    return outcome


def meaning(text: str, device_type: str = "") -> str:
    """The text without what differs between two devices that mean the same: names, addresses, values, ways to write sizes."""
    text = re.split(r"\nException raised from|\nValue: ", text)[0]
    text = re.sub(r"0x[0-9a-fA-F]+", "ADDRESS", text)
    text = re.sub(r"\(Triggered internally at [^)]*\)", "", text)
    text = re.sub(r"(Could not run '[^']*').*", r"\1", text, flags=re.DOTALL)
    text = re.sub(r'"[^"\n]*" not implemented for', "KERNEL not implemented for", text)
    text = re.sub(r"(forward AD with )\w+", r"\1OPERATOR", text)  # a fused kernel has a name for each device
    names = "|".join(re.escape(name) for name in (*DEVICE_NAMES, device_type) if name)
    text = re.sub(rf"\btorch\.(?:(?:{names})\.)?(\w+)Tensor\b", r"\1Type", text, flags=re.IGNORECASE)
    text = re.sub(rf"\b(?:{names})(\w+Type)\b", r"\1", text, flags=re.IGNORECASE)
    text = re.sub(rf"\b({names})(:\d+|, index=\d+)?\b", "DEVICE", text, flags=re.IGNORECASE)
    return " ".join(re.sub(r"[\[\](),]", " ", text).split())


def check_error(expected: Exception, actual: Attempt, device: torch.device, depends_on_data, where: str) -> None:
    """Raises Mismatch unless the device's error means what the CPU's does.

    depends_on_data(): whether the CPU's error follows from values and not from metadata. Such an error may come late
    and in words of the device's own; every other one must come at the call, with the CPU's type and meaning.
    """
    wanted = f"{type(expected).__name__}: {' '.join(str(expected).split())[:300]}"
    if actual.error is None:
        raise Mismatch(f"{where}: no error, the CPU raises {wanted}")
    found = f"{type(actual.error).__name__}: {' '.join(str(actual.error).split())[:300]}"
    same = not actual.late and type(actual.error) is type(expected)
    if same and meaning(str(expected), device.type) == meaning(str(actual.error), device.type):
        return
    if depends_on_data():
        return
    when = "only when synchronised, " if actual.late else ""
    raise Mismatch(f"{where}: raises {when}{found}; the CPU raises {wanted}")


def check_warnings(expected: Attempt, actual: Attempt, device: torch.device, where: str) -> None:
    """Raises Mismatch unless both gave the same warnings, each counted once."""
    wanted = {meaning(text, device.type): text for text in expected.warned}
    found = {meaning(text, device.type): text for text in actual.warned}
    for key, text in wanted.items():
        if key not in found:
            raise Mismatch(f"{where}: does not warn, the CPU warns {' '.join(text.split())[:300]}")
    for key, text in found.items():
        if key not in wanted:
            raise Mismatch(f"{where}: warns {' '.join(text.split())[:300]}; the CPU does not")
