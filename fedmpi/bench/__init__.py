"""How fast a machine trains: floors, collectives, engines, whole rounds and memory, each measured in new processes."""
