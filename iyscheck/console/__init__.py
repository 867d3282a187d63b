"""The console: pages for those who operate servers, as a process of its own, that only looks.

It holds no store and no store key. What it shows it asks of servers by gRPC and reads from their metrics.
"""
