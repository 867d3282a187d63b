"""Feeds consent changes of İYS into an iyscheck store."""
