"""`raygrid bench`: measures what a user's own grid adds to the user's own pricer.

`run.py` runs copies of one input over plain HTTP and times them; `verdict.py` turns the times into sentences.
"""

from raygrid.trial.run import JobTimes, Trial, run_trial
from raygrid.trial.verdict import TrialVerdict, verdict

__all__ = ["JobTimes", "Trial", "TrialVerdict", "run_trial", "verdict"]
