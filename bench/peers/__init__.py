"""The farm beside other ways to serve the same pipeline: overhead, what a crash loses, and who waits for whom."""
