collect_ignore = ["outside", "cascades"]  # a project of its own; test_outside.py builds it and runs its tests
