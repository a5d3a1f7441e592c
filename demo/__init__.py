"""``make demo``: a real OOM kill, its heap profile in a local S3, and what the profile says."""
