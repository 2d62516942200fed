"""What became of one row. Plain data, no torch: it travels between processes and into results.jsonl."""

from dataclasses import asdict, dataclass, fields

# Outcomes that count against the device, worst first: a row takes the worst outcome of its samples.
FAILING = ("crash", "timeout", "error", "mismatch", "unsupported")
# Every outcome, in the order of the summary table. `cpu-cannot` and `skip` stay out of the score.
OUTCOMES = ("pass", "mismatch", "unsupported", "error", "crash", "timeout", "cpu-cannot", "skip")


@dataclass
class RowResult:
    """One row's outcome, as written to results.jsonl.

    `message` explains every outcome but `pass`. `sample` is the index of the first sample that gave the
    outcome, in the list of all samples of the row; it does not depend on how many were run.
    """

    op: str
    dtype: str
    mode: str
    device: str
    outcome: str
    message: str = ""
    stage: str = ""  # what the device was doing when it raised: "call", "backward", "copy back", ...
    error_type: str = ""
    sample: int | None = None
    sample_summary: str = ""
    samples_total: int = 0  # COUNT: samples that the operator database has for this row
    samples_run: int = 0  # COUNT: samples compared, those that the CPU cannot run included
    samples_failed: int = 0
    samples_cpu_cannot: int = 0
    seconds: float = 0.0
    seed: int = 0
    after: str = ""  # of a crash or a hang: the row that ran before it in the same process
    gap: str = ""  # "covered" by the gap file, "unexpected pass", or ""
    gap_reason: str = ""

    @property
    def id(self) -> str:
        return f"{self.op}:{self.dtype}:{self.mode}"

    @property
    def sentence(self) -> str:
        text = f"{self.stage}: {self.message}" if self.stage else self.message
        return f"{text} (after {self.after} in the same process)" if self.after else text

    @property
    def failing(self) -> bool:
        return self.outcome in FAILING

    @property
    def scored(self) -> bool:
        """Whether the row counts: the CPU itself can run it."""
        return self.failing or self.outcome == "pass"

    def to_json(self) -> dict:
        return {"id": self.id, **asdict(self)}

    @classmethod
    def from_json(cls, record: dict) -> "RowResult":
        names = {f.name for f in fields(cls)}
        return cls(**{k: v for k, v in record.items() if k in names})
