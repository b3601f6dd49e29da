collect_ignore = ["outside"]  # a project of its own; test_outside.py builds it and runs its tests
