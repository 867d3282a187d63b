"""What is told of loads and stores: to people, to programs, to Prometheus."""
