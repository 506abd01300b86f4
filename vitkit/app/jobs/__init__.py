"""What a training asks of its kind of task, answered in a file a kind; :data:`JOBS` names them."""

from vitkit.app.jobs.base import JOBS, Job, job_class

__all__ = ["JOBS", "Job", "job_class"]
