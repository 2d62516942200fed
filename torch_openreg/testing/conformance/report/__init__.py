"""What a run leaves behind: the summary in the terminal and the files of a folder, a module for each. No torch is imported here.

results.jsonl is written while the run goes; `write_files` writes the others from its rows, whether the run came to its end or not.
"""

from pathlib import Path

from .. import ranking
from ..ranking import Ranking
from ..run_facts import RunFacts
from . import badge, junit, page, support
from .cause import failure_groups, repro_command
from .progress import Progress
from .results import ResultFile, ResultsError, read_results
from .score import accepted, ordered
from .summary import print_summary, summary_table

__all__ = [
    "Progress", "ResultFile", "ResultsError", "accepted", "failure_groups", "print_summary", "read_results", "repro_command",
    "summary_table", "write_files",
]  # fmt: skip


def write_files(directory: Path, results, facts: RunFacts, *, baseline=None, ranked: Ranking | None = None) -> list[str]:
    """Writes the files and returns their names. Each is whole or not there: one that is written takes the old one's place at its end.

    baseline: the results of an earlier run, or None. ranked: what to fix first.
    """
    results = ordered(results)
    source = f"From {len(results)} rows and {sum(r.samples_run for r in results)} samples on {facts.device}, torch {facts.plan['torch']}.\n"
    texts = {
        "report.html": page.text(
            results, facts, baseline=baseline, ranking=ranked.entries() if ranked else (), work=ranking.work_lines(ranked) if ranked else ()
        ),
        "junit.xml": junit.text(results, properties=facts.facts, options=facts.repro_options, exit_problems=facts.exit_problems),
        "support.md": support.text(results, source=source),
        "badge.json": badge.text(results, facts.device),
    }
    if ranked:
        texts["ranking.json"] = ranking.text(ranked)
    for name, text in texts.items():
        begun = directory / f"{name}.begun"
        begun.write_text(text, encoding="utf-8")
        begun.replace(directory / name)
    return list(texts)
