"""Worker processes: a pool with a queue, and the segmentation of requests."""
