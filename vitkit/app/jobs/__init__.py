"""What each kind of task is made of: a file a kind, and a line in :data:`JOBS`."""

from vitkit.app.jobs.base import JOBS, Job, job_class

__all__ = ["JOBS", "Job", "job_class"]
