"""Which policy, at which setting, on your own questions? ``dispatcher calibrate log.csv`` replays a file and says.

A log is a CSV, TSV or JSON Lines file of questions with their answers, in the order of asking; labelled pairs of
questions do too. Every setting of every policy is tried on all of it, as a cache that starts empty; then the report
has the hits at 1, 2 and 5 % wrong answers, chosen and seen on different halves, and a line to paste::

    from dispatch_core.calibrate import as_text, calibrate, read

    report = calibrate(read(Path("log.csv")), SentenceTransformerEmbedder(), max_error=0.01)
    print(as_text(report))

Importing this needs nothing; the plot needs ``pip install 'ai-dispatcher[calibrate]'``.
"""

from __future__ import annotations

from dispatch_core.calibrate.calibration import Report, calibrate
from dispatch_core.calibrate.choose import Figures, Recommendation, Trial, Verdict
from dispatch_core.calibrate.cli import ABOUT, add_arguments, run
from dispatch_core.calibrate.families import FAMILIES, Family
from dispatch_core.calibrate.log import Log, Pairs, Source
from dispatch_core.calibrate.plot import plot
from dispatch_core.calibrate.read import Columns, read
from dispatch_core.calibrate.report import as_data, as_text

__all__ = [
    "ABOUT",
    "FAMILIES",
    "Columns",
    "Family",
    "Figures",
    "Log",
    "Pairs",
    "Recommendation",
    "Report",
    "Source",
    "Trial",
    "Verdict",
    "add_arguments",
    "as_data",
    "as_text",
    "calibrate",
    "plot",
    "read",
    "run",
]
