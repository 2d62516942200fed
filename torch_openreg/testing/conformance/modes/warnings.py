"""`warnings`: the warnings of the call, by category and text, each counted once."""


def run(case) -> None:
    def form(copy, side):
        return {"output": case.info(copy.input, *copy.args, **copy.kwargs)}

    case.agree(form, values="none", strides=False, errors=False, warn=True)
