"""What İYS pushes: taken by a process of its own, which knows no store, and kept until the writer has read it."""
