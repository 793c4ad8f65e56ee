"""The decisions of parents: which group gets a job, and which groups are lost."""
