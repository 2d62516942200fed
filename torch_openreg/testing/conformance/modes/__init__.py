"""The calling forms of the kit, a file each: what a mode runs for one sample, and what it compares.

RUNNERS has, for each name of `rows.MODES`, `run(case)`: it raises calls.CpuCannot when the CPU cannot run the sample in this
form, compare.Mismatch when the device differs, and lets the device's own errors through. `case` is a calls.Case.
"""

from . import errors, forward, forward_ad, func, gradgrad, gradient, inplace, layouts, out, scalars, views, warnings

RUNNERS = {
    "forward": forward.run,
    "gradient": gradient.run,
    "gradgrad": gradgrad.run,
    "forward_ad": forward_ad.run,
    "out": out.run,
    "inplace": inplace.run,
    "layouts": layouts.run,
    "views": views.run,
    "scalars": scalars.run,
    "func": func.run,
    "errors": errors.run,
    "warnings": warnings.run,
}
