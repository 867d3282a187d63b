"""The processes of one server: a supervisor, its workers on one port, and what they tell each other."""
