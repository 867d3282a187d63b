"""What a log costs its primary, how fast replicas follow it, how late they are, how they boot, how files grow."""
