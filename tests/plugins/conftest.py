# projects of their own, which test_outside.py and test_cascades.py use as such
collect_ignore = ["outside", "cascades"]
